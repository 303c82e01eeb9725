/* Every operation of the table is there on every device and instruction set, whether or not this processor could run
 * it, and is listed once under its own name. */
#include <string.h>

#include "device/cpu.h"
#include "support/harness.h"

static void refuse_null(const char *isa, const ser_ops *ops) {
  for (size_t i = 0; i < ser_op_count; i++) {
    void (*entry)(void);
    memcpy(&entry, (const char *)ops + ser_op_entries[i].offset, sizeof entry);
    if (!entry) fail_msg("%s has no %s", isa, ser_op_entries[i].name);
  }
}

static void check_device(ser_device *device, ser_stream *stream, void *context) {
  ser_device_properties is;
  (void)stream;
  (void)context;
  device->rt->properties(device, &is);
  refuse_null(is.backend, device->ops);
}

static void every_entry_is_filled(void **state) {
  (void)state;
  test_each_device(check_device, 1, NULL);
  refuse_null("base", &ser_cpu_ops_base);
#if defined(__x86_64__)
  refuse_null("avx2", &ser_cpu_ops_avx2);
  refuse_null("avx512", &ser_cpu_ops_avx512);
#endif
}

static void every_entry_is_listed_once(void **state) {
  (void)state;
  assert_int_equal(ser_op_count * sizeof(void (*)(void)), sizeof(ser_ops));
  for (size_t i = 0; i < ser_op_count; i++) {
    assert_int_equal(ser_op_entries[i].offset, i * sizeof(void (*)(void)));
    assert_true(strlen(ser_op_entries[i].name) > 0);
    for (size_t j = 0; j < i; j++) assert_string_not_equal(ser_op_entries[i].name, ser_op_entries[j].name);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_entry_is_filled),
      cmocka_unit_test(every_entry_is_listed_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
