/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * SHA-512 in the eight 64-bit lanes of AVX-512. */
#include "sha512.h"

#ifdef DESYNC_X86
#include <immintrin.h>

#define KERNEL sha512_lanes_avx512
#define TARGET USES("avx512f,avx512bw")
#define VECTOR __m512i
#define LANES 8
/* A ternary operation is its truth table: bit 4a + 2b + c of the constant is the result for bits a, b and c. */
#define ADD(a, b) _mm512_add_epi64(a, b)
#define XOR3(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x96)
#define CHOOSE(e, f, g) _mm512_ternarylogic_epi64(e, f, g, 0xca)
#define MAJORITY(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0xe8)
#define SHIFT_RIGHT(a, n) _mm512_srli_epi64(a, n)
#define ROTATE_RIGHT(a, n) _mm512_ror_epi64(a, n)
#define ROTATE_RIGHT_8(a) ROTATE_RIGHT(a, 8)
#define BROADCAST(word) _mm512_set1_epi64((long long)(word))

/* Eight words of each of eight lanes: swap their bytes, and turn rows into columns. */
TARGET static inline void load_words(VECTOR *words, const uint8_t *const *data, size_t offset)
{
    const __m512i swap = _mm512_broadcast_i32x4(_mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    __m512i row[LANES];
    for (int l = 0; l < LANES; l++)
        row[l] = _mm512_shuffle_epi8(_mm512_loadu_si512(data[l] + offset), swap);
    /* Pieces of 128 bits are (word of lane l, same word of lane l + 1) after the first step: of even words in pairs[0], of odd
     * words in pairs[1]. The next two steps bring together those of four, then of all eight lanes. */
    __m512i pairs[2][4];
    for (int l = 0; l < LANES; l += 2) {
        pairs[0][l / 2] = _mm512_unpacklo_epi64(row[l], row[l + 1]);
        pairs[1][l / 2] = _mm512_unpackhi_epi64(row[l], row[l + 1]);
    }
    for (int odd = 0; odd < 2; odd++) {
        const __m512i *pair = pairs[odd];
        __m512i first0 = _mm512_shuffle_i64x2(pair[0], pair[1], 0x88), first1 = _mm512_shuffle_i64x2(pair[0], pair[1], 0xdd);
        __m512i last0 = _mm512_shuffle_i64x2(pair[2], pair[3], 0x88), last1 = _mm512_shuffle_i64x2(pair[2], pair[3], 0xdd);
        words[0 + odd] = _mm512_shuffle_i64x2(first0, last0, 0x88);
        words[4 + odd] = _mm512_shuffle_i64x2(first0, last0, 0xdd);
        words[2 + odd] = _mm512_shuffle_i64x2(first1, last1, 0x88);
        words[6 + odd] = _mm512_shuffle_i64x2(first1, last1, 0xdd);
    }
}

TARGET static inline void load_message(VECTOR *message, const uint8_t *const *data)
{
    load_words(message, data, 0);
    load_words(message + 8, data, 64);
}

#include "sha512_core.h"
#endif
