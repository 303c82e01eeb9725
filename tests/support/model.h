/* A small model with random weights, for tests of what uses models. */
#ifndef SER_TESTS_MODEL_H
#define SER_TESTS_MODEL_H

#include "model/model.h"

/* Saves a model of the feature kind's default preset with `classes` labels, two blocks, weights drawn at the seed, no
 * standardisation (mean 0, deviation 1). */
void test_model_write(const char *path, ser_feature_kind kind, int classes, uint64_t seed);
/* The same with one block of so many filters, for windows of so many frames. */
void test_model_write_wide(const char *path, int classes, uint64_t seed, int64_t filters, int64_t frames);

#endif
