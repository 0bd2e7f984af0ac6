/* Numbers that the encoder and the decoder of `quantized` share; formats/SPEC.md explains them. */
#ifndef EDGEPRUNE_FORMAT_H
#define EDGEPRUNE_FORMAT_H

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__) && !defined(EDGEPRUNE_SCALAR)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

enum { CLASSES = 48, CENTER = 20, BANDS = 16, BASE_OFFSET = 64, SATURATION = 15, ESCAPE = 15, NEIGHBORS = 12 };
enum { SYMBOLS = 16, PRECISION = 12, LOW = 65536 };
/* Contexts have levels up to round(2 log2(450 + 2)) = 18, and bands up to 15. */
enum { LEVELS = 32 };

#endif
