# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
