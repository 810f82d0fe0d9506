/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The search for a cut with the vectors that every machine has, or that the compiler makes do without. */
#include "cuts.h"
#include <string.h>

#ifdef DESYNC_VECTORS

#define FIND_MATCH find_match_portable
#define TARGET
#define LANES 4
#define KEEP_ROTATED 0
#define VECTOR words
#define NO_MATCH ((words){0})

typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint64_t long_words __attribute__((vector_size(4 * LANES)));

/* What is_cut() needs, for each lane. */
struct test {
    words inverse, addend, bias, last;
    unsigned shift;
};

static inline struct test test_of(struct divisor divisor)
{
    const words zero = {0};
    /* With an odd divisor nothing is rotated, and the bias can go into the addend. */
    return (struct test){
        .inverse = divisor.inverse - zero,
        .addend = divisor.inverse - (divisor.shift == 0 ? divisor.bias : 0) - zero,
        .bias = divisor.bias - zero,
        .last = divisor.last - zero,
        .shift = divisor.shift,
    };
}

/* All ones in the lanes that had a match. */
static inline VECTOR add_tests(VECTOR so_far, const uint32_t *now, const uint32_t *then, const struct test *test, int odd)
{
    words hash, before;
    memcpy(&hash, now, sizeof hash);
    memcpy(&before, then, sizeof before);
    hash ^= before << 16 | before >> 16;
    words quotient = hash * test->inverse + test->addend;
    if (!odd)
        quotient = (quotient >> test->shift | quotient << (32 - test->shift)) - test->bias;
    return so_far | (words)(quotient <= test->last);
}

static inline int any_match(VECTOR so_far, const struct test *test)
{
    (void)test;
    long_words pairs = (long_words)so_far;
    return (pairs[0] | pairs[1]) != 0;
}

#include "cuts_strides.h"
#endif
