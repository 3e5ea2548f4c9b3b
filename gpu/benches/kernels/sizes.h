// How much work each kernel of the benchmark has.
enum {
  VECTOR = 1 << 24,
  SGEMM = 512,
  OPTIONS = 1 << 22,
  NBODY = 8192,
  ROUNDS = 7,
};

// What array k holds.
#define VALUE(i, k) (1 + ((i) * 7 + (k) * 13) % 101 * 0.25f)
