/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What browsers do in a profile directory: a lock, databases with a write-ahead
 * log, preferences that are replaced by rename(), a journal that is appended
 * to and synced, a cache of many small files of which some go. The browser is
 * killed, and started again.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sqlite_db.h"

#define NR_CACHED  200
#define NR_CHANGES 15
#define NR_TABS    8

#define TRY(what)                                  \
	do {                                       \
		if (!(what)) {                     \
			printf("%s: %m\n", #what); \
			exit(1);                   \
		}                                  \
	} while (0)

/* Beside the old file, then in its place. */
static void replace(const char *name, int version)
{
	char tmp[64], text[64];
	int fd, len;

	snprintf(tmp, sizeof(tmp), "%s.tmp", name);
	len = snprintf(text, sizeof(text), "version %d\n", version);
	TRY((fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC, 0600)) >= 0);
	TRY(write(fd, text, (size_t)len) == len);
	TRY(fsync(fd) == 0);
	TRY(close(fd) == 0);
	TRY(rename(tmp, name) == 0);
}

static void check_version(const char *name, int version)
{
	char text[64] = "", expected[64];
	int fd;

	snprintf(expected, sizeof(expected), "version %d\n", version);
	TRY((fd = open(name, O_RDONLY)) >= 0);
	TRY(read(fd, text, sizeof(text) - 1) >= 0);
	close(fd);
	TRY(strcmp(text, expected) == 0);
}

/* A tab's process, which fills the cache. */
static void fill_cache(int tab)
{
	char name[64], doomed[64];
	int fd;

	for (int i = tab; i < NR_CACHED; i += NR_TABS) {
		snprintf(name, sizeof(name), "cache/%040d", i);
		TRY((fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0600)) >= 0);
		TRY(pwrite(fd, name, strlen(name), 4096) ==
		    (ssize_t)strlen(name));
		TRY(pwrite(fd, &i, sizeof(i), 0) == sizeof(i));
		close(fd);
		if (i % 4)
			continue;
		snprintf(doomed, sizeof(doomed), "doomed/%d", i);
		TRY(rename(name, doomed) == 0);
		TRY(unlink(doomed) == 0);
	}
}

static void check_cache(void)
{
	char name[64], text[64];
	struct stat st;
	int fd, number;

	for (int i = 0; i < NR_CACHED; i++) {
		snprintf(name, sizeof(name), "cache/%040d", i);
		if (i % 4 == 0) {
			TRY(stat(name, &st) < 0);
			continue;
		}
		TRY((fd = open(name, O_RDONLY)) >= 0);
		TRY(pread(fd, text, sizeof(text), 4096) ==
		    (ssize_t)strlen(name));
		TRY(memcmp(text, name, strlen(name)) == 0);
		TRY(pread(fd, &number, sizeof(number), 0) == sizeof(number));
		TRY(number == i);
		close(fd);
	}
	TRY(rmdir("doomed") == 0);
}

/* Without shared memory, as some mounts have none. */
static sqlite3 *open_log(const char *name)
{
	sqlite3 *db = open_db(name);

	run(db, "PRAGMA locking_mode = EXCLUSIVE");
	run(db, "PRAGMA journal_mode = WAL");
	run(db, "PRAGMA wal_autocheckpoint = 20");
	return db;
}

static void lock_profile(void)
{
	struct flock fl = { .l_type = F_WRLCK };
	int fd;

	TRY((fd = open(".parentlock", O_RDWR | O_CREAT, 0600)) >= 0);
	TRY(fcntl(fd, F_SETLK, &fl) == 0);
	unlink("lock");
	TRY(symlink("127.0.0.1:+1", "lock") == 0);
	TRY((fd = open("LOCK", O_RDWR | O_CREAT, 0600)) >= 0);
	TRY(flock(fd, LOCK_EX | LOCK_NB) == 0);
}

/* Until it is killed, in the middle of a transaction. */
static void browse(void)
{
	sqlite3 *places, *cookies;
	int journal;

	lock_profile();
	places = open_log("places.sqlite");
	cookies = open_log("cookies.sqlite");
	run(places, "CREATE TABLE visits (n INTEGER, url TEXT)");
	run(cookies, "CREATE TABLE cookies (n INTEGER UNIQUE, value TEXT)");
	TRY((journal = open("000003.log", O_WRONLY | O_CREAT | O_APPEND,
			    0600)) >= 0);
	for (int i = 1; i <= NR_CHANGES; i++) {
		run(places, "INSERT INTO visits VALUES "
			    "(1, hex(randomblob(200)))");
		run(cookies, "INSERT OR REPLACE INTO cookies VALUES "
			     "(abs(random()) % 20, hex(randomblob(100)))");
		replace("prefs.js", i);
		TRY(write(journal, "change\n", 7) == 7);
		TRY(fdatasync(journal) == 0);
	}
	run(places, "BEGIN");
	run(places, "UPDATE visits SET n = 2");
	kill(getpid(), SIGKILL);
}

static void check_profile(void)
{
	struct stat st;
	char count[16];
	sqlite3 *db;

	lock_profile();
	check_version("prefs.js", NR_CHANGES);
	TRY(stat("prefs.js.tmp", &st) < 0);
	TRY(stat("000003.log", &st) == 0 && st.st_size == 7 * NR_CHANGES);
	snprintf(count, sizeof(count), "%d", NR_CHANGES);
	db = open_log("places.sqlite");
	expect(db, "SELECT sum(n) FROM visits", count);
	expect(db, "PRAGMA integrity_check", "ok");
	sqlite3_close(db);
	TRY(stat("places.sqlite-wal", &st) < 0);
	db = open_log("cookies.sqlite");
	expect(db, "PRAGMA integrity_check", "ok");
	sqlite3_close(db);
	check_cache();
}

int profile(const char *dir)
{
	int status, killed = 0, failed = 0;

	TRY(chdir(dir) == 0);
	TRY(mkdir("cache", 0700) == 0 && mkdir("doomed", 0700) == 0);
	for (int i = 0; i <= NR_TABS; i++) {
		if (fork() == 0) {
			if (i < NR_TABS)
				fill_cache(i);
			else
				browse();
			exit(0);
		}
	}
	while (wait(&status) > 0) {
		killed += status == SIGKILL;
		failed += status != 0;
	}
	if (killed != 1 || failed != 1)
		return 1;
	check_profile();
	return 0;
}
