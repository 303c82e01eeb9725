#include "train/streams.h"

ser_status ser_streams_make(ser_streams *s, ser_device *device, ser_error *err) {
  const ser_runtime *rt = device->rt;
  s->device = device;
  SER_TRY(rt->stream_create(device, &s->compute, err));
  SER_TRY(rt->stream_create(device, &s->copies, err));
  SER_TRY(rt->event_create(device, &s->computed, err));
  return rt->event_create(device, &s->copied, err);
}

void ser_streams_free(ser_streams *s) {
  if (!s->device) return;
  const ser_runtime *rt = s->device->rt;
  rt->event_destroy(s->computed);
  rt->event_destroy(s->copied);
  rt->stream_destroy(s->copies);
  rt->stream_destroy(s->compute);
  *s = (ser_streams){0};
}

void ser_streams_then_copy(const ser_streams *s) {
  s->device->rt->record(s->compute, s->computed);
  s->device->rt->follow(s->copies, s->computed);
}

void ser_streams_then_compute(const ser_streams *s) {
  s->device->rt->record(s->copies, s->copied);
  s->device->rt->follow(s->compute, s->copied);
}
