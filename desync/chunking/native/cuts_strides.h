/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The search for a cut with vectors, two to four times as fast as byte by byte.
 *
 * Let P(i) be the hash of all bytes up to i, from wherever we began, without taking any out: P(i) = rotl(P(i - 1), 1) ^ T[b(i)].
 * What came in 48 bytes earlier has been rotated by 48 since, that is by 16; so the hash of the last 48 bytes alone is
 * P(i) ^ rotl(P(i - 48), 16). Taking P along is scalar work, as each depends on the one before it; the rest is the same for all
 * positions, and done for several at once.
 *
 * The scalar work is what takes the time, so it is cut down to a load, an exclusive or and a store for each byte: we take along P
 * rotated right by 1 to 8, one more for each byte of a group of eight, and rotate only every eighth byte. There is a table for each
 * of the eight. Vector code that can rotate each lane by a number of its own rotates back.
 *
 * The two kinds of work alternate in small portions, the vectors one stride behind, so that both find units to run on.
 *
 * The file that includes this defines
 *   FIND_MATCH        the function's name; it is a match_finder
 *   TARGET            its attributes
 *   LANES             how many positions a vector has
 *   KEEP_ROTATED      1 if add_tests() is to get the values rotated right by i % 8 + 1, 0 if it is to get P
 *   struct test, test_of(divisor)
 *                     what the vector code needs to know of the divisor
 *   VECTOR, NO_MATCH  the type and the first value of what comes of tests
 *   add_tests(so_far, now, then, test, odd)
 *                     test LANES positions; `now` and `then` are the values of these positions and of those 48 before, aligned
 *                     to LANES; `odd` says, as a constant, that the divisor is odd
 *   any_match(so_far, test)
 *                     whether any of the tests found a match */
#include <string.h>

enum {
    GROUP = 8,
    PORTION = 16,           /* positions that either kind of work has its turn with */
    STRIDE = 64,            /* positions between two looks at whether there was a match */
    KEPT = WINDOW + STRIDE, /* values that the next stride needs */
    STRIDES = 32,           /* until those are moved to the front of the buffer */
};

/* The table rotated right by 1 to 8. */
static _Alignas(64) uint32_t rotated_tables[GROUP][256];

static void __attribute__((constructor)) rotate_tables(void)
{
    for (unsigned i = 0; i < GROUP; i++)
        for (unsigned byte = 0; byte < 256; byte++)
            rotated_tables[i][byte] = rotate_left(buzhash_table[byte], 31 - i);
}

#define INLINE static inline __attribute__((always_inline))

/* Take in a byte, the i-th of its group. */
#define TAKE_IN(i, byte)                                                                                                         \
    do {                                                                                                                         \
        value ^= rotated_tables[i][byte];                                                                                        \
        values[i] = KEEP_ROTATED ? value : rotate_left(value, (i) + 1);                                                          \
    } while (0)

/* Take in a group. `value` is what the last position of the group before had, and the result what the last of this one has. Half of
 * the bytes are taken out of a register, because each needs another load already, and there are only two or three in a cycle. */
INLINE uint32_t take_in_group(const uint8_t *bytes, uint32_t *values, uint32_t value)
{
    uint32_t half = bytes[4] | (uint32_t)bytes[5] << 8 | (uint32_t)bytes[6] << 16 | (uint32_t)bytes[7] << 24;
    value = rotate_left(value, GROUP);
    TAKE_IN(0, bytes[0]);
    TAKE_IN(1, bytes[1]);
    TAKE_IN(2, bytes[2]);
    TAKE_IN(3, bytes[3]);
    TAKE_IN(4, half & 255);
    TAKE_IN(5, half >> 8 & 255);
    TAKE_IN(6, half >> 16 & 255);
    TAKE_IN(7, half >> 24);
    return value;
}

/* The number of strides without a match, at most `strides`, of which the first begins with the position of bytes[WINDOW]. Looks at
 * KEPT + strides * STRIDE bytes. */
TARGET INLINE size_t strides_without(const uint8_t *bytes, size_t strides, struct divisor divisor, int odd)
{
    _Alignas(64) uint32_t values[KEPT + STRIDES * STRIDE];
    const struct test test = test_of(divisor);
    uint32_t value = 0;
    for (size_t i = 0; i < KEPT; i += GROUP)
        value = take_in_group(bytes + i, values + i, value);
    bytes += KEPT;
    for (size_t stride = 0; stride < strides; stride++) {
        uint32_t *then = values + stride % STRIDES * STRIDE;
        VECTOR so_far = NO_MATCH;
#pragma GCC unroll 4
        for (size_t i = 0; i < STRIDE; i += PORTION) {
#pragma GCC unroll 2
            for (size_t j = i; j < i + PORTION; j += GROUP)
                value = take_in_group(bytes + j, then + KEPT + j, value);
#pragma GCC unroll 4
            for (size_t j = i; j < i + PORTION; j += LANES)
                so_far = add_tests(so_far, then + WINDOW + j, then + j, &test, odd);
        }
        if (__builtin_expect(any_match(so_far, &test), 0))
            return stride;
        bytes += STRIDE;
        if (stride % STRIDES == STRIDES - 1)
            memcpy(values, values + STRIDES * STRIDE, KEPT * sizeof *values);
    }
    return strides;
}

TARGET size_t FIND_MATCH(const uint8_t *chunk, size_t first, size_t limit, const struct divisor *divisor)
{
    /* The strides test from first + 1 on. */
    const uint8_t *bytes = chunk + first - WINDOW;
    if (limit - first < KEPT + STRIDE || is_cut(buzhash(bytes), *divisor))
        return find_match_bytewise(chunk, first, limit, divisor);
    size_t strides = (limit - first - KEPT) / STRIDE;
    if (divisor->shift == 0)
        strides = strides_without(bytes, strides, *divisor, 1);
    else
        strides = strides_without(bytes, strides, *divisor, 0);
    return find_match_bytewise(chunk, first + 1 + strides * STRIDE, limit, divisor);
}
