/* PyTorch's two formats. ZIP: stored entries NAME/data.pkl (the pickle), NAME/data/KEY (a storage each), NAME/version,
 * NAME/byteorder. Before 1.6: five pickles (a magic number, a version, the writer's machine, the table, the storages'
 * keys), then each storage behind the number of its elements. */
#ifndef SER_MODEL_WEIGHTS_TORCH_H
#define SER_MODEL_WEIGHTS_TORCH_H

#include "model/weights.h"

/* The first pickle: a number that PyTorch made up. */
#define SER_TORCH_LEGACY_MAGIC "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."

/* weights has path, bytes and size; these set the rest. Where they fail, ser_weights_close frees what is there. */
ser_status ser_torch_zip_read(ser_weights *weights, ser_error *err);
ser_status ser_torch_legacy_read(ser_weights *weights, ser_error *err);

#endif
