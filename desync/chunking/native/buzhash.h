/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The rolling hash of the cut rule; desync/chunking/buzhash.py says what it is. */
#ifndef DESYNC_BUZHASH_H
#define DESYNC_BUZHASH_H

#include <stddef.h>
#include <stdint.h>

#define WINDOW 48

extern const uint32_t buzhash_table[256];

static inline uint32_t rotate_left(uint32_t value, unsigned count)
{
    return value << (count & 31) | value >> (-count & 31);
}

/* The hash of the 48 bytes from `window` on. */
static inline uint32_t buzhash(const uint8_t *window)
{
    uint32_t hash = 0;
    for (size_t i = 0; i < WINDOW; i++)
        hash = rotate_left(hash, 1) ^ buzhash_table[window[i]];
    return hash;
}

/* How to tell without dividing whether hash % d == d - 1, that is, whether d divides hash + 1.
 *
 * With d = odd * 2^shift, (hash + 1) * (the inverse of odd modulo 2^32), rotated right by shift, is the quotient if d divides
 * hash + 1, and otherwise larger than any quotient can be. hash = 2^32 - 1 makes hash + 1 wrap to 0, which looks like the
 * quotient 0. It truly is divisible only if d is a power of two; for other d, bias moves the quotient 0 out of the range. */
struct divisor {
    uint32_t inverse;
    unsigned shift;
    uint32_t bias;
    uint32_t last; /* the largest quotient, less bias */
};

static inline struct divisor divisor_of(uint32_t d)
{
    unsigned shift = 0;
    while ((d >> shift & 1) == 0)
        shift++;
    uint32_t odd = d >> shift;
    uint32_t inverse = odd; /* right in its lowest 3 bits; each step doubles how many are right */
    for (int i = 0; i < 4; i++)
        inverse *= 2 - odd * inverse;
    uint32_t bias = odd > 1;
    return (struct divisor){inverse, shift, bias, UINT32_MAX / d - bias};
}

static inline int is_cut(uint32_t hash, struct divisor d)
{
    return rotate_left((hash + 1) * d.inverse, 32 - d.shift) - d.bias <= d.last;
}

#endif
