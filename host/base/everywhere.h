/* Functions that the kernels of a GPU call as the host does. */
#ifndef SER_BASE_EVERYWHERE_H
#define SER_BASE_EVERYWHERE_H

#ifdef __CUDACC__
#define SER_EVERYWHERE __host__ __device__
#else
#define SER_EVERYWHERE
#endif

#endif
