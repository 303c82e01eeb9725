/* Philox4x32-10 against the vectors published with Random123 (kat_vectors), and dropout_mask against its rule. */
#include <stdlib.h>

#include "base/memory.h"
#include "base/philox.h"
#include "support/temporal.h"

static void known_answers(void **state) {
  (void)state;
  static const struct {
    uint64_t key, high, low;
    uint32_t want[4];
  } list[] = {
      {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
    ser_philox got = ser_philox_at(list[i].key, list[i].high, list[i].low);
    for (int j = 0; j < 4; j++) assert_int_equal(got.v[j], list[i].want[j]);
  }
  assert_true(ser_uniform(0) == 0 && ser_uniform(UINT32_MAX) == 1 - 0x1p-24f);
}

typedef struct {
  int64_t layers, sides, batch, channels;
  float p;
  uint64_t seed;
  int64_t number; /* of the step */
} drop_case;

static size_t masks(const drop_case *k) {
  return test_dims_make(k->layers * k->sides * k->batch, k->channels, 1).columns;
}

static void run(test_buffers *all, const void *context, float *out) {
  const drop_case *k = context;
  float *drop = test_out(all, masks(k));
  ser_tensor_shape shape = {k->sides, k->batch, k->channels, 162};
  const ser_step *step = test_step(all, k->number, 3);
  int64_t before = test_allocations(all->device);
  all->device->ops->dropout_mask(all->stream, drop, k->p, k->seed, step, k->layers, &shape);
  assert_int_equal(test_allocations(all->device), before);
  test_read(all, out, drop);
}

static void check(const void *context, const float *out) {
  const drop_case *k = context;
  test_dims d = test_dims_make(k->batch, k->channels, 1);
  for (int64_t i = 0; i < (int64_t)masks(k); i++) { /* [layers][sides][batch][channels] */
    int64_t c = i % d.cp, b = i / d.cp % d.b, side = i / d.cp / d.b % k->sides, layer = i / d.cp / d.b / k->sides;
    int64_t row = (side * k->layers + layer) * d.b + b;
    float uniform =
        ser_uniform(ser_philox_at(k->seed, (uint64_t)(k->number - 1), (uint64_t)(row * (d.cp / 4) + c / 4)).v[c % 4]);
    float want = c >= d.c || uniform < k->p ? 0 : 1 / (1 - k->p);
    if (out[i] != want)
      fail_msg("layer %d, side %d, clip %d, channel %d: %g, not %g", (int)layer, (int)side, (int)b, (int)c,
               (double)out[i], (double)want);
  }
}

static void the_rule(void **state) {
  (void)state;
  static const drop_case cases[] = {{1, 1, 1, 1, 0.1f, 0, 1},
                                    {16, 2, 64, 39, 0.1f, 7, 4},
                                    {3, 1, 3, 41, 0.5f, UINT64_MAX, INT64_MAX},
                                    {20, 2, 3, 40, 0.3f, 12, INT64_C(1) << 50},
                                    {2, 2, 5, 5, 0, 1, 2},
                                    {1, 1, 1, 1000, 0.2f, 3, 9},
                                    {1, 2, 1000, 2, 0.25f, 4, 10},
                                    {31, 1, 33, 32, 0.1f, 5, 11},
                                    {2, 2, 162, 31, 0.9f, 6, 12}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) test_operation(run, check, &cases[i], masks(&cases[i]));
}

static void check_published(const void *context, const float *out) {
  (void)context;
  assert_true(out[0] == 0 && out[1] == 1 / 0.375f && out[2] == 1 / 0.375f && out[3] == 0 && out[4] == 0);
}

/* The published vector for counter and key zero, as the mask shows it: uniforms 0.399, 0.881, 0.736, 0.606. */
static void the_published_vector(void **state) {
  (void)state;
  drop_case k = {1, 1, 1, 4, 0.625f, 0, 1};
  test_operation(run, check_published, &k, 8);
}

static void check_share(const void *context, const float *out) {
  const drop_case *k = context;
  test_dims d = test_dims_make(k->layers * k->sides * k->batch, k->channels, 1);
  int64_t dropped = 0;
  for (int64_t i = 0; i < (int64_t)d.columns; i++) dropped += i % d.cp < d.c && out[i] == 0;
  double share = (double)dropped / (double)(d.b * d.c);
  assert_true(share > 0.09 && share < 0.11); /* 39000 draws: 0.1 +- 0.0015 */
}

static void the_share_that_is_dropped(void **state) {
  (void)state;
  drop_case k = {10, 2, 50, 39, 0.1f, 99, 6};
  test_operation(run, check_share, &k, masks(&k));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(known_answers),
      cmocka_unit_test(the_rule),
      cmocka_unit_test(the_published_vector),
      cmocka_unit_test(the_share_that_is_dropped),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
