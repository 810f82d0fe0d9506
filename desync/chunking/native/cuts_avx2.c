/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The search for a cut with AVX2. */
#include "cuts.h"

#ifdef DESYNC_X86
#include <immintrin.h>

#define FIND_MATCH find_match_avx2
#define TARGET USES("avx2")
#define LANES 8
#define KEEP_ROTATED 1
#define VECTOR __m256i
#define NO_MATCH _mm256_set1_epi32(-1)

/* What is_cut() needs, for each lane. */
struct test {
    __m256i inverse, addend, bias, last;
    __m128i right, left;
};

TARGET static inline struct test test_of(struct divisor divisor)
{
    /* With an odd divisor nothing is rotated, and the bias can go into the addend. */
    return (struct test){
        .inverse = _mm256_set1_epi32((int)divisor.inverse),
        .addend = _mm256_set1_epi32((int)(divisor.inverse - (divisor.shift == 0 ? divisor.bias : 0))),
        .bias = _mm256_set1_epi32((int)divisor.bias),
        .last = _mm256_set1_epi32((int)divisor.last),
        .right = _mm_cvtsi32_si128((int)divisor.shift),
        .left = _mm_cvtsi32_si128(32 - (int)divisor.shift),
    };
}

/* The least quotient of all in each lane: there is a match if it isn't above the last possible one. */
TARGET static inline VECTOR add_tests(VECTOR so_far, const uint32_t *now, const uint32_t *then, const struct test *test, int odd)
{
    const __m256i swap_halves = _mm256_broadcastsi128_si256(_mm_set_epi8(13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2));
    const __m256i left = _mm256_set_epi32(8, 7, 6, 5, 4, 3, 2, 1);
    const __m256i right = _mm256_set_epi32(24, 25, 26, 27, 28, 29, 30, 31);
    __m256i then_by_16 = _mm256_shuffle_epi8(_mm256_load_si256((const __m256i *)then), swap_halves);
    __m256i hash = _mm256_xor_si256(_mm256_load_si256((const __m256i *)now), then_by_16);
    hash = _mm256_or_si256(_mm256_sllv_epi32(hash, left), _mm256_srlv_epi32(hash, right));
    __m256i quotient = _mm256_add_epi32(_mm256_mullo_epi32(hash, test->inverse), test->addend);
    if (!odd) {
        quotient = _mm256_or_si256(_mm256_srl_epi32(quotient, test->right), _mm256_sll_epi32(quotient, test->left));
        quotient = _mm256_sub_epi32(quotient, test->bias);
    }
    return _mm256_min_epu32(so_far, quotient);
}

TARGET static inline int any_match(VECTOR so_far, const struct test *test)
{
    return _mm256_movemask_epi8(_mm256_cmpeq_epi32(_mm256_min_epu32(so_far, test->last), so_far)) != 0;
}

#include "cuts_strides.h"
#endif
