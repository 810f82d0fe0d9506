/* Copyright (c) The desync-py authors.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Instruction sets that there is code for. compiled.py has the same numbers. */
#ifndef DESYNC_LEVELS_H
#define DESYNC_LEVELS_H

enum level {
    LEVEL_SCALAR = 0, /* any machine */
    LEVEL_AVX2 = 1,
    LEVEL_AVX512 = 2,
};

/* Vectors in the compiler's own notation. */
#if defined(__GNUC__) || defined(__clang__)
#define DESYNC_VECTORS 1
#endif

/* The x86 kernels are compiled with function attributes and chosen at run time, so the same file runs on any x86-64. */
#if defined(__x86_64__) && defined(DESYNC_VECTORS)
#define DESYNC_X86 1
#endif

/* What a function may use. With DESYNC_EMULATED, for tests, immintrin.h is a header that does in plain C what the instructions do,
 * and the compiler must not use them either. */
#ifdef DESYNC_EMULATED
#define USES(instructions)
#else
#define USES(instructions) __attribute__((target(instructions)))
#endif

#endif
