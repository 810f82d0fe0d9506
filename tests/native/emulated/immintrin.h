/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Stands in for the compiler's immintrin.h: SIMDe does in plain C what the instructions do. */
#ifndef DESYNC_EMULATED_IMMINTRIN_H
#define DESYNC_EMULATED_IMMINTRIN_H

#define SIMDE_NO_NATIVE
#define SIMDE_NO_INLINE /* inlining all that takes a compiler minutes */
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>

#include <stdint.h>
#include <string.h>

/* What SIMDe 0.7.4 hasn't got. */

#ifndef _mm512_alignr_epi32
static inline __m512i emulated_alignr_epi32(__m512i high, __m512i low, int count)
{
    uint32_t words[32];
    __m512i result;
    memcpy(words, &low, 64);
    memcpy(words + 16, &high, 64);
    memcpy(&result, words + (count & 15), 64);
    return result;
}
#define _mm512_alignr_epi32(high, low, count) emulated_alignr_epi32(high, low, count)
#endif

#ifndef _mm512_shuffle_i64x2
static inline __m512i emulated_shuffle_i64x2(__m512i a, __m512i b, int which)
{
    uint64_t from[2][8], to[8];
    __m512i result;
    memcpy(from[0], &a, 64);
    memcpy(from[1], &b, 64);
    for (int part = 0; part < 4; part++)
        memcpy(to + 2 * part, from[part / 2] + 2 * (which >> 2 * part & 3), 16);
    memcpy(&result, to, 64);
    return result;
}
#define _mm512_shuffle_i64x2(a, b, which) emulated_shuffle_i64x2(a, b, which)
#endif

#ifndef _mm512_maskz_loadu_epi8
static inline __m512i emulated_maskz_loadu_epi8(uint64_t mask, const void *from)
{
    uint8_t bytes[64] = {0};
    __m512i result;
    for (int i = 0; i < 64; i++)
        if (mask >> i & 1)
            bytes[i] = ((const uint8_t *)from)[i];
    memcpy(&result, bytes, 64);
    return result;
}
#define _mm512_maskz_loadu_epi8(mask, from) emulated_maskz_loadu_epi8(mask, from)
#endif

#endif
