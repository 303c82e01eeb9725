/* Half precision: every half comes back, and every float becomes the nearest one, of two the even one. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "support/harness.h"

static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static void test_every_half(void **state) {
  (void)state;
  for (uint32_t half = 0; half < 0x10000; half++) {
    float value = ser_from_half((uint16_t)half);
    uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
    double want = exponent ? ldexp(1024 + fraction, (int)exponent - 25) : ldexp(fraction, -24);
    if (exponent == 31) {
      assert_true(fraction ? isnan(value) : isinf(value));
      assert_int_equal(ser_to_half(value) & 0x7c00, 0x7c00);
      continue;
    }
    assert_true((double)value == (half & 0x8000 ? -want : want));
    assert_int_equal(bits_of(value) >> 31, half >> 15);
    assert_int_equal(ser_to_half(value), half);
  }
}

/* The middle between two neighbours, and a hair to each side of it. */
static void test_rounding(void **state) {
  (void)state;
  for (uint32_t half = 0; half < 0x7bff; half++) {
    float below = ser_from_half((uint16_t)half), above = ser_from_half((uint16_t)(half + 1));
    float middle = below + (above - below) / 2;
    assert_int_equal(ser_to_half(middle), half % 2 ? half + 1 : half);
    assert_int_equal(ser_to_half(nextafterf(middle, 0)), half);
    assert_int_equal(ser_to_half(nextafterf(middle, INFINITY)), half + 1);
    assert_int_equal(ser_to_half(-nextafterf(middle, 0)), half | 0x8000);
  }
  /* What no half reaches stays finite. */
  assert_int_equal(ser_to_half(65519), 0x7bff);
  assert_int_equal(ser_to_half(65520), 0x7bff);
  assert_int_equal(ser_to_half(-3e38f), 0xfbff);
  assert_int_equal(ser_to_half(INFINITY), 0x7c00);
  assert_int_equal(ser_to_half(1e-30f), 0);
  assert_true(isnan(ser_from_half(ser_to_half(NAN))));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_half), cmocka_unit_test(test_rounding)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
