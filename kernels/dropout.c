/* Masks of spatial dropout (torch.nn.Dropout1d: a whole channel of a clip at once) from counter-based numbers, so that
 * a clip's mask depends on its index alone and a resumed run repeats it. */
#include "base/philox.h"
#include "kernels/kernels.h"
#include "kernels/temporal.h"

void SER_ISA(cpu_dropout_mask)(ser_stream *stream, float *drop, float p, uint64_t seed, uint64_t stream_id,
                               int64_t first, const ser_tensor_shape *shape) {
  (void)stream;
  ser_dims d = dims_of(shape->channels, shape->time);
  float kept = 1 / (1 - p);
  for (int64_t b = 0; b < shape->batch; b++)
    for (int64_t c = 0; c < d.cp; c += 4) {
      ser_philox random = ser_philox_at(seed, stream_id, (uint64_t)((first + b) * (d.cp / 4) + c / 4));
      for (int64_t i = 0; i < 4; i++) drop[b * d.cp + c + i] = c + i >= d.c || ser_uniform(random.v[i]) < p ? 0 : kept;
    }
}
