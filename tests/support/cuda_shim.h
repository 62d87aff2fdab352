// What makes a C++ compiler take a CUDA source: one thread at a time, whose place the caller sets before each call.
#include <math.h>

#define __global__
#define __device__
#define __forceinline__ inline

struct dim3 { unsigned x, y, z; };
extern "C" { dim3 gridDim, blockDim, blockIdx, threadIdx; }
