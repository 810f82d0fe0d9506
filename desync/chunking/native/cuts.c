/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The chunks of a buffer, one after the other, whatever finds their ends. */
#include "cuts.h"

#include "zeros.h"

match_finder *cut_finder(enum level level, const char **name)
{
#ifdef DESYNC_X86
    if (level >= LEVEL_AVX512 && __builtin_cpu_supports("avx512vbmi")) {
        *name = "avx512";
        return find_match_avx512;
    }
    if (level >= LEVEL_AVX2) {
        *name = "avx2";
        return find_match_avx2;
    }
#endif
    (void)level;
    *name = "portable C";
#ifdef DESYNC_VECTORS
    return find_match_portable;
#else
    return find_match_bytewise;
#endif
}

size_t find_cuts(match_finder *finder, const uint8_t *data, size_t start, size_t stop, size_t end, const struct cut_rule *rule,
                 uint32_t *ends)
{
    static const uint8_t zeros[WINDOW];
    int fixed = rule->min == rule->max;
    size_t first = rule->min > WINDOW ? rule->min : WINDOW;
    struct divisor divisor = divisor_of(fixed ? 1 : rule->discriminator);
    int zeros_match = is_cut(buzhash(zeros), divisor);
    size_t count = 0;

    if (stop > end)
        stop = end;
    while (start < stop) {
        size_t limit = end - start < rule->max ? end - start : rule->max;
        const uint8_t *chunk = data + start;
        /* Long runs of zeros are frequent in images, and told from other data at the first byte. */
        if (fixed || limit <= first || (!zeros_match && is_zero(chunk, limit)))
            start += limit;
        else
            start += finder(chunk, first, limit, &divisor);
        ends[count++] = (uint32_t)start;
    }
    return count;
}
