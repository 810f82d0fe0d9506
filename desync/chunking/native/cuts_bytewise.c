/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The search for a cut byte by byte: what the rule says, and what the faster ones leave to it at their edges. */
#include "cuts.h"

size_t find_match_bytewise(const uint8_t *chunk, size_t first, size_t limit, const struct divisor *divisor)
{
    struct divisor d = *divisor;
    uint32_t hash = buzhash(chunk + first - WINDOW);
    for (size_t length = first;; length++) {
        if (is_cut(hash, d))
            return length;
        if (length + 1 >= limit)
            return limit;
        uint32_t leaving = rotate_left(buzhash_table[chunk[length - WINDOW]], WINDOW);
        hash = rotate_left(hash, 1) ^ leaving ^ buzhash_table[chunk[length]];
    }
}
