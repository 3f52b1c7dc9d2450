/* SPDX-License-Identifier: BSD-2-Clause */
/* SQLite for programs of guests, which exit with a line about what failed. */
#ifndef TESTS_GUEST_SQLITE_DB_H
#define TESTS_GUEST_SQLITE_DB_H

#include <sqlite3.h>

sqlite3 *open_db(const char *path);
void run(sqlite3 *db, const char *sql);
/* A query's first value. */
void expect(sqlite3 *db, const char *sql, const char *value);

/* As a browser writes its profile, in the empty directory @dir. 0 or 1. */
int profile(const char *dir);

#endif
