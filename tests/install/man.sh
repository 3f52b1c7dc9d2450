#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The manual pages have no mistakes that a formatter sees: man.sh PAGE...
set -u

status=0
if command -v mandoc >/dev/null; then
	mandoc -T lint -W warning "$@" || status=1
elif command -v groff >/dev/null; then
	for page; do
		words=$(groff -mandoc -Tutf8 -ww -z "$page" 2>&1)
		[ -z "$words" ] || { echo "$words" && status=1; }
	done
else
	exit 77
fi
exit $status
