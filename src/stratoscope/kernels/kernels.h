/* What every kernel shares. Functions are plain C, called with addresses and sizes: see __init__.py. */
#pragma once
#include <math.h>
#include <stdint.h>

/* Compiled once for each kind of processor; the loader picks the one that the machine can run. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
