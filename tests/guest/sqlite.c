/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SQLite in a directory that is shared: a writer is killed in the middle of a
 * transaction, the next one rolls it back; several processes write at once.
 *
 *	sqlite DATABASE
 *	sqlite profile DIRECTORY	what profile.c does
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sqlite_db.h"

#define NR_ROWS    2000
#define NR_WRITERS 4
#define NR_EACH    10

static const char *path;

sqlite3 *open_db(const char *file)
{
	sqlite3 *db;

	if (sqlite3_open(file, &db) != SQLITE_OK ||
	    sqlite3_busy_timeout(db, 60000) != SQLITE_OK) {
		printf("open: %s\n", sqlite3_errmsg(db));
		exit(1);
	}
	return db;
}

void run(sqlite3 *db, const char *sql)
{
	char *why = NULL;

	if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK) {
		printf("%s: %s (%d)\n", sql, why, sqlite3_extended_errcode(db));
		exit(1);
	}
}

void expect(sqlite3 *db, const char *sql, const char *value)
{
	sqlite3_stmt *stmt;
	const char *found = "";

	if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK &&
	    sqlite3_step(stmt) == SQLITE_ROW)
		found = (const char *)sqlite3_column_text(stmt, 0);
	if (strcmp(found, value) != 0) {
		printf("%s: %s, not %s: %s (%d)\n", sql, found, value,
		       sqlite3_errmsg(db), sqlite3_extended_errcode(db));
		exit(1);
	}
	sqlite3_finalize(stmt);
}

static void fill(void)
{
	sqlite3 *db = open_db(path);

	run(db, "CREATE TABLE t (n INTEGER, s TEXT)");
	run(db, "BEGIN");
	for (int i = 0; i < NR_ROWS; i++)
		run(db, "INSERT INTO t VALUES (1, hex(randomblob(100)))");
	run(db, "COMMIT");
	sqlite3_close(db);
}

/* Pages are in the database already, and those from before in its journal. */
static void crash(void)
{
	sqlite3 *db = open_db(path);

	run(db, "PRAGMA cache_size = 5");
	run(db, "BEGIN IMMEDIATE");
	run(db, "UPDATE t SET n = 2, s = s || 'x'");
	kill(getpid(), SIGKILL);
}

static void add(void)
{
	for (int i = 0; i < NR_EACH; i++) {
		sqlite3 *db = open_db(path);

		run(db, "INSERT INTO t VALUES (1, 'added')");
		sqlite3_close(db);
	}
}

/* Run in @nr processes; how the last one ended. */
static int in_processes(void (*what)(void), int nr)
{
	int status = 0, ret = 0;

	for (int i = 0; i < nr; i++) {
		if (fork() == 0) {
			what();
			fflush(stdout);
			_exit(0);
		}
	}
	while (wait(&status) > 0)
		ret = status ? status : ret;
	return ret;
}

int main(int argc, char **argv)
{
	char count[32];
	sqlite3 *db;

	if (argc == 3 && !strcmp(argv[1], "profile"))
		return profile(argv[2]);
	if (argc != 2)
		return 2;
	path = argv[1];
	if (in_processes(fill, 1) != 0 || in_processes(crash, 1) != SIGKILL)
		return 1;
	db = open_db(path);
	expect(db, "SELECT max(n) FROM t", "1");
	expect(db, "PRAGMA integrity_check", "ok");
	sqlite3_close(db);

	if (in_processes(add, NR_WRITERS) != 0)
		return 1;
	snprintf(count, sizeof(count), "%d", NR_ROWS + NR_WRITERS * NR_EACH);
	db = open_db(path);
	expect(db, "SELECT count(*) FROM t", count);
	expect(db, "PRAGMA integrity_check", "ok");
	sqlite3_close(db);
	return 0;
}
