/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Operations a second on many small files in a directory, in the guest:
 *
 *	files DIR COUNT
 *
 * prints a line `NAME RATE` for each of create, stat, read, list and unlink;
 * list counts entries.
 */
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void do_create(const char *name)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);

	if (fd < 0 || write(fd, name, strlen(name)) < 0 || close(fd) < 0)
		err(1, "create %s", name);
}

static void do_stat(const char *name)
{
	struct stat st;

	if (stat(name, &st) < 0)
		err(1, "stat %s", name);
}

static void do_read(const char *name)
{
	int fd = open(name, O_RDONLY);
	char buf[64];

	if (fd < 0 || read(fd, buf, sizeof(buf)) <= 0)
		err(1, "read %s", name);
	close(fd);
}

static void do_unlink(const char *name)
{
	if (unlink(name) < 0)
		err(1, "unlink %s", name);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void each(const char *what, void (*fn)(const char *name), unsigned nr)
{
	double start = now();
	char name[16];

	for (unsigned i = 0; i < nr; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		fn(name);
	}
	printf("%s %.1f\n", what, nr / (now() - start));
}

/* Several times over, as one listing is a few requests only. */
static void list(unsigned nr)
{
	const unsigned times = 10;
	double start = now();
	unsigned seen = 0;

	for (unsigned i = 0; i < times; i++) {
		DIR *dir = opendir(".");
		const struct dirent *e;

		if (!dir)
			err(1, "opendir");
		while ((e = readdir(dir)))
			seen += e->d_name[0] == 'f';
		closedir(dir);
	}
	if (seen != times * nr)
		errx(1, "%u entries listed, not %u", seen, times * nr);
	printf("list %.1f\n", seen / (now() - start));
}

int main(int argc, char **argv)
{
	unsigned nr = argc == 3 ? (unsigned)strtoul(argv[2], NULL, 0) : 0;

	if (nr == 0)
		errx(2, "usage: files DIR COUNT");
	if (chdir(argv[1]) < 0)
		err(1, "%s", argv[1]);
	each("create", do_create, nr);
	each("stat", do_stat, nr);
	each("read", do_read, nr);
	list(nr);
	each("unlink", do_unlink, nr);
	return 0;
}
