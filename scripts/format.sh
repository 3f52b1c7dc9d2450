#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Format the C sources as .clang-format says, or with --check say which are not.
# Versions of clang-format differ; both Debian 12 and 13 have 19.
set -eu
cd "$(dirname "$0")/.."
find src include tests examples -name '*.[ch]' -print0 |
	case ${1:-} in
	--check) xargs -0 clang-format-19 --dry-run --Werror ;;
	*) xargs -0 clang-format-19 -i ;;
	esac
