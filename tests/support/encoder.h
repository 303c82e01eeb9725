/* The small encoders and the clips of tests/golden/embedding, and what an encoder makes of a batch of them. */
#ifndef SER_TESTS_ENCODER_H
#define SER_TESTS_ENCODER_H

#include "model/encoder/encoder.h"
#include "model/safetensors.h"
#include "support/harness.h"

enum { TEST_ENCODER_CLIPS = 16 };

typedef struct {
  ser_tensors file; /* holds the samples: ser_tensors_free */
  const float *samples;
  int64_t count, length[TEST_ENCODER_CLIPS], start[TEST_ENCODER_CLIPS + 1];
} test_clips;
test_clips test_clips_read(void);

/* A file of a model's folder ("": the folder), or one beside the folders (file ""). The caller frees it. */
char *test_encoder_path(const char *name, const char *file);
void test_encoder_tensors(ser_tensors *tensors, const char *name, const char *file);

typedef struct {
  ser_device *device;
  ser_stream *stream;
  ser_encoder *encoder;
  const test_clips *all;
} test_encoder;

/* What a batch gave, on the host. */
typedef struct {
  int64_t clips, rows, row_start[TEST_ENCODER_CLIPS + 1], layers;
  float *features, *hidden, *pooled;
} test_encoded;

/* Runs the clips of these numbers as one batch; layers as in ser_encoder_output. */
test_encoded test_encode(const test_encoder *r, const int64_t *which, int64_t count, uint64_t layers);
void test_encoded_free(test_encoded *o);

#endif
