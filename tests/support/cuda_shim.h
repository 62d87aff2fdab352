// Definitions with which a C++ compiler accepts a CUDA source. A call runs one thread, after the caller has set blockIdx
// and threadIdx.
#include <math.h>

#define __global__
#define __device__
#define __forceinline__ inline

struct dim3 { unsigned x, y, z; };
extern "C" { dim3 gridDim, blockDim, blockIdx, threadIdx; }
