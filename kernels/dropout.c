/* Masks of spatial dropout (torch.nn.Dropout1d: a whole channel of a clip at once) from counter-based numbers, so that
 * a clip's mask depends on its place in the step alone and a resumed run repeats it. */
#include "base/philox.h"
#include "kernels/kernels.h"
#include "kernels/temporal.h"

typedef struct {
  float *drop; /* [layers][S][B][Cp] */
  float p, kept;
  uint64_t seed, step;
  int64_t layers, sides, batch;
  ser_dims d;
} drop_context;

/* The mask of one layer on one side. */
static void drop_layer(void *context, size_t task, int thread) {
  (void)thread;
  const drop_context *k = context;
  const ser_dims *d = &k->d;
  int64_t layer = (int64_t)task / k->sides, side = (int64_t)task % k->sides;
  float *drop = k->drop + (int64_t)task * k->batch * d->cp;
  int64_t first = (side * k->layers + layer) * k->batch;
  for (int64_t b = 0; b < k->batch; b++)
    for (int64_t c = 0; c < d->cp; c += 4) {
      ser_philox random = ser_philox_at(k->seed, k->step, (uint64_t)((first + b) * (d->cp / 4) + c / 4));
      for (int64_t i = 0; i < 4; i++)
        drop[b * d->cp + c + i] = c + i >= d->c || ser_uniform(random.v[i]) < k->p ? 0 : k->kept;
    }
}

void SER_ISA(cpu_dropout_mask)(ser_stream *stream, float *drop, float p, uint64_t seed, const ser_step *step,
                               int64_t layers, const ser_tensor_shape *shape) {
  drop_context context = {.drop = drop,
                          .p = p,
                          .kept = 1 / (1 - p),
                          .seed = seed,
                          .step = (uint64_t)(step->number - 1),
                          .layers = layers,
                          .sides = shape->sides,
                          .batch = shape->batch,
                          .d = dims_of(shape->channels, shape->time)};
  ser_cpu_parallel(stream, (size_t)(layers * shape->sides), drop_layer, &context);
}
