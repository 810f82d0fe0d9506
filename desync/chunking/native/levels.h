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

/* The x86 kernels are compiled with function attributes and chosen at run time, so the same file runs on any x86-64. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__)) && !defined(DESYNC_NO_X86)
#define DESYNC_X86 1
#endif

#endif
