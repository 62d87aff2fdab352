// Elementwise kernels, each in one pass over memory: Adam's step, and GELU with its gradient.
//
// The maths is that of reference.py, in the precision of the arrays. Every array is contiguous and has n entries. The
// host checks that, and passes every number in the type that is declared here. The end of the file instantiates each
// kernel under its name and the name of the dtype, such as adam_step_float32.
//
// NVRTC compiles this file on a machine with a GPU. Any C++ compiler does so with tests/support/cuda_shim.h, for tests.

#define FOR_EACH_ENTRY(i, n)                                                                                           \
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < (n);                                      \
         i += (long long)gridDim.x * blockDim.x)

// ---- optimizers -----------------------------------------------------------------------------

// The ten numbers are those of adam_coefficients in reference.py.
template <typename T>
__device__ __forceinline__ void adam_step(T* p, const T* g, T* m, T* v, long long n, T sign, T decay_factor, T decay,
                                          T beta1, T one_minus_beta1, T beta2, T one_minus_beta2, T correction2, T eps,
                                          T rate) {
    FOR_EACH_ENTRY(i, n) {
        T x = p[i] * decay_factor, d = sign * g[i];
        if (decay != T(0)) d += decay * x;
        T mean = beta1 * m[i] + one_minus_beta1 * d;
        T square = beta2 * v[i] + one_minus_beta2 * (d * d);
        m[i] = mean;
        v[i] = square;
        p[i] = x - rate * (mean / (sqrt(square) / correction2 + eps));
    }
}

// ---- activations ----------------------------------------------------------------------------

template <typename T>
__device__ __forceinline__ T normal_cdf(T x) {
    return T(0.5) * (T(1) + erf(x * T(0.70710678118654752440)));  // sqrt(1/2)
}

// Beyond this number the cdf is 0 or 1. x is clamped to it, because infinity times 0 would be NaN. NaN stays.
#define GELU_FAR 1000

template <typename T>
__device__ __forceinline__ T not_below_far(T x) {
    return x < T(-GELU_FAR) ? T(-GELU_FAR) : x;
}

template <typename T>
__device__ __forceinline__ T within_far(T x) {
    return x > T(GELU_FAR) ? T(GELU_FAR) : not_below_far(x);
}

template <typename T>
__device__ __forceinline__ void gelu(const T* x, T* y, long long n) {
    FOR_EACH_ENTRY(i, n) { y[i] = not_below_far(x[i]) * normal_cdf(x[i]); }
}

template <typename T>
__device__ __forceinline__ void gelu_backward(const T* g, const T* x, T* dx, long long n) {
    FOR_EACH_ENTRY(i, n) {
        T a = within_far(x[i]);
        T pdf = exp(T(-0.5) * a * a) * T(0.39894228040143267794);  // 1 / sqrt(2 pi)
        dx[i] = g[i] * (normal_cdf(a) + a * pdf);
    }
}

// GPT-2's approximation of the cdf, (1 + tanh(z / 2)) / 2 with z = 2 sqrt(2/pi) (x + 0.044715 x^3). As a sigmoid of z it
// keeps its digits where it is near 0.
template <typename T>
__device__ __forceinline__ T sigmoid_of_cubic(T x) {
    return T(1) / (T(1) + exp(T(-1.59576912160573071176) * (x + T(0.044715) * (x * x * x))));
}

template <typename T>
__device__ __forceinline__ void gelu_tanh(const T* x, T* y, long long n) {
    FOR_EACH_ENTRY(i, n) { y[i] = not_below_far(x[i]) * sigmoid_of_cubic(within_far(x[i])); }
}

template <typename T>
__device__ __forceinline__ void gelu_tanh_backward(const T* g, const T* x, T* dx, long long n) {
    FOR_EACH_ENTRY(i, n) {
        T a = within_far(x[i]), c = sigmoid_of_cubic(a);
        T slope = T(1.59576912160573071176) * (T(1) + T(0.134145) * (a * a));
        dx[i] = g[i] * (c + a * c * (T(1) - c) * slope);
    }
}

// ---- instantiation for each dtype -----------------------------------------------------------

#define KERNELS(T, dtype)                                                                                              \
    extern "C" __global__ void adam_step_##dtype(T* p, const T* g, T* m, T* v, long long n, T sign, T decay_factor,    \
                                                 T decay, T beta1, T one_minus_beta1, T beta2, T one_minus_beta2,      \
                                                 T correction2, T eps, T rate) {                                       \
        adam_step<T>(p, g, m, v, n, sign, decay_factor, decay, beta1, one_minus_beta1, beta2, one_minus_beta2,         \
                     correction2, eps, rate);                                                                          \
    }                                                                                                                  \
    extern "C" __global__ void gelu_##dtype(const T* x, T* y, long long n) { gelu<T>(x, y, n); }                       \
    extern "C" __global__ void gelu_backward_##dtype(const T* g, const T* x, T* dx, long long n) {                     \
        gelu_backward<T>(g, x, dx, n);                                                                                 \
    }                                                                                                                  \
    extern "C" __global__ void gelu_tanh_##dtype(const T* x, T* y, long long n) { gelu_tanh<T>(x, y, n); }             \
    extern "C" __global__ void gelu_tanh_backward_##dtype(const T* g, const T* x, T* dx, long long n) {                \
        gelu_tanh_backward<T>(g, x, dx, n);                                                                            \
    }

KERNELS(float, float32)
KERNELS(double, float64)
