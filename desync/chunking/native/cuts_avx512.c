/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The search for a cut with AVX-512 and its byte permutations (VBMI): no scalar work at all.
 *
 * The table of 256 words is kept in registers as four planes of bytes, where 64 bytes are looked up at once. The hash of 2 bytes
 * comes of two neighbors of one byte, that of 4 bytes of two neighbors of 2, and so on up to 16:
 *     H2n(i) = Hn(i) ^ rotl(Hn(i - n), n)
 * and the hash of 48 bytes of three of 16, of which each is a whole vector behind the other:
 *     H48(i) = H16(i) ^ rotl(H16(i - 16), 16) ^ H16(i - 32)                    (a rotation by 32 is none)
 * Every hash depends on the 48 bytes before it alone, so the search may begin at any byte; what its first 47 positions give is of
 * too few bytes, and not looked at. */
#include "cuts.h"

#ifdef DESYNC_X86
#include <immintrin.h>

#define TARGET USES("avx512f,avx512bw,avx512vbmi")
#define INLINE static inline __attribute__((always_inline))

enum {
    BYTES = 64, /* in a vector; they become four vectors of words */
    WORDS = 16,
};

/* Byte b of each word of the table: one vector for 64 words. */
static _Alignas(64) uint8_t planes[4][4][BYTES];

/* What look_up() does to its bytes before it interleaves them within parts of 128 bits: after that, byte i of part p has become
 * word 4 p + i % 4 of vector i / 4. */
static _Alignas(64) uint8_t order[BYTES];

static void __attribute__((constructor)) make_planes(void)
{
    for (unsigned i = 0; i < BYTES; i++)
        order[i] = (uint8_t)(i % 16 / 4 * WORDS + i / 16 * 4 + i % 4);
    for (unsigned byte = 0; byte < 256; byte++)
        for (unsigned plane = 0; plane < 4; plane++)
            planes[plane][byte / BYTES][byte % BYTES] = (uint8_t)(buzhash_table[byte] >> 8 * plane);
}

struct table {
    __m512i plane[4][4];
    __m512i order;
};

TARGET INLINE struct table load_table(void)
{
    struct table table;
    for (int plane = 0; plane < 4; plane++)
        for (int part = 0; part < 4; part++)
            table.plane[plane][part] = _mm512_load_si512(planes[plane][part]);
    table.order = _mm512_load_si512(order);
    return table;
}

/* Look up 64 bytes: the words for bytes 16 v to 16 v + 15 come into words[v]. */
TARGET INLINE void look_up(__m512i bytes, const struct table *table, __m512i words[4])
{
    __m512i which = _mm512_permutexvar_epi8(table->order, bytes), plane[4];
    uint64_t upper = _mm512_movepi8_mask(which); /* bytes from 128 on; the permutations look at the lower seven bits */
    for (int p = 0; p < 4; p++) {
        const __m512i *part = table->plane[p];
        plane[p] = _mm512_mask_blend_epi8(upper, _mm512_permutex2var_epi8(part[0], which, part[1]),
                                          _mm512_permutex2var_epi8(part[2], which, part[3]));
    }
    __m512i low01 = _mm512_unpacklo_epi8(plane[0], plane[1]), high01 = _mm512_unpackhi_epi8(plane[0], plane[1]);
    __m512i low23 = _mm512_unpacklo_epi8(plane[2], plane[3]), high23 = _mm512_unpackhi_epi8(plane[2], plane[3]);
    words[0] = _mm512_unpacklo_epi16(low01, low23);
    words[1] = _mm512_unpackhi_epi16(low01, low23);
    words[2] = _mm512_unpacklo_epi16(high01, high23);
    words[3] = _mm512_unpackhi_epi16(high01, high23);
}

/* What the next 16 positions need of those before them. */
struct past {
    __m512i h1, h2, h4, h8; /* of the 16 positions before */
    __m512i h16, h16_before; /* of those, and of the 16 before those */
};

/* Hn(i) ^ rotl(Hn(i - n), n): the words of n positions earlier are the last n of `before` and the first of `now`. */
#define JOIN(now, before, n) _mm512_xor_si512(now, _mm512_rol_epi32(_mm512_alignr_epi32(now, before, WORDS - (n)), n))

TARGET INLINE __m512i hashes(__m512i h1, struct past *past)
{
    __m512i h2 = JOIN(h1, past->h1, 1);
    __m512i h4 = JOIN(h2, past->h2, 2);
    __m512i h8 = JOIN(h4, past->h4, 4);
    __m512i h16 = JOIN(h8, past->h8, 8);
    /* 0x96 is the truth table of an exclusive or of three. */
    __m512i h48 = _mm512_ternarylogic_epi32(h16, _mm512_rol_epi32(past->h16, 16), past->h16_before, 0x96);
    *past = (struct past){h1, h2, h4, h8, h16, past->h16};
    return h48;
}

TARGET size_t find_match_avx512(const uint8_t *chunk, size_t first, size_t limit, const struct divisor *divisor)
{
    const struct table table = load_table();
    const __m512i inverse = _mm512_set1_epi32((int)divisor->inverse), last = _mm512_set1_epi32((int)divisor->last);
    const __m512i bias = _mm512_set1_epi32((int)divisor->bias), shift = _mm512_set1_epi32((int)divisor->shift);
    struct past past = {0};
    const uint8_t *end = chunk + limit - 1; /* the last byte can complete no match of a length below the limit */
    const uint8_t *at = chunk + first - WINDOW;
    /* Of the first 64 bytes only those from the 48th on can complete a match. */
    uint64_t wanted = UINT64_MAX << (WINDOW - 1);

    for (; at < end; at += BYTES) {
        size_t left = (size_t)(end - at);
        __m512i words[4], bytes;
        if (left >= BYTES) {
            bytes = _mm512_loadu_si512(at);
        } else {
            uint64_t readable = ((uint64_t)1 << left) - 1;
            bytes = _mm512_maskz_loadu_epi8(readable, at);
            wanted &= readable;
        }
        look_up(bytes, &table, words);
        uint64_t matches = 0;
        for (int v = 0; v < 4; v++) {
            __m512i quotient = _mm512_mullo_epi32(hashes(words[v], &past), inverse);
            quotient = _mm512_rorv_epi32(_mm512_add_epi32(quotient, inverse), shift);
            quotient = _mm512_sub_epi32(quotient, bias);
            matches |= (uint64_t)_mm512_cmple_epu32_mask(quotient, last) << (WORDS * v);
        }
        matches &= wanted;
        if (__builtin_expect(matches != 0, 0))
            return (size_t)(at - chunk) + (size_t)__builtin_ctzll(matches) + 1;
        wanted = UINT64_MAX;
    }
    return limit;
}
#endif
