/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Finding where chunks end. */
#ifndef DESYNC_CUTS_H
#define DESYNC_CUTS_H

#include "buzhash.h"
#include "levels.h"

/* What the cut rule needs to know. */
struct cut_rule {
    size_t min;             /* bytes; equal to max: every chunk has this length */
    size_t max;             /* bytes; at least WINDOW unless equal to min */
    uint32_t discriminator; /* at least 1; not looked at for fixed sizes */
};

/* Return the first length from `first` on at which a chunk ends by its content, or `limit` if there is none below that.
 * At least `limit` bytes are readable, and nothing behind them is read. WINDOW <= first < limit. */
typedef size_t match_finder(const uint8_t *chunk, size_t first, size_t limit, const struct divisor *divisor);

match_finder find_match_bytewise;
#ifdef DESYNC_VECTORS
match_finder find_match_portable;
#endif
#ifdef DESYNC_X86
match_finder find_match_avx2;
match_finder find_match_avx512;
#endif

/* The fastest finder of a level that this processor can run, and its name. */
match_finder *cut_finder(enum level level, const char **name);

/* Cut data[start..end) into chunks until the first cut at or past `stop`; write their ends, return how many there are.
 * The caller has made sure that `ends` has room for all, and that each chunk that begins before `stop` has rule->max bytes or
 * ends with the file. start <= end <= UINT32_MAX. */
size_t find_cuts(match_finder *finder, const uint8_t *data, size_t start, size_t stop, size_t end, const struct cut_rule *rule,
                 uint32_t *ends);

#endif
