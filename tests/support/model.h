/* A small model with random weights, for tests of what uses models. */
#ifndef SER_TESTS_MODEL_H
#define SER_TESTS_MODEL_H

#include "model/model.h"

/* Saves a model of the feature kind's default preset with `classes` labels, two blocks, weights drawn at the seed, no
 * standardisation (mean 0, deviation 1). */
void test_model_write(const char *path, ser_feature_kind kind, int classes, uint64_t seed);

#endif
