// `partition_of` of libs/contract: Postgres' hash of a bigint, in sums of 32 bits.

const rotate = (x, by) => (x << by) | (x >>> (32 - by));

function mix(a, b, c) {
  for (const shift of [4, 6, 8, 16, 19, 4]) {
    a = (a - c) ^ rotate(c, shift);
    c = (c + b) | 0;
    [a, b, c] = [b, c, a];
  }
  return [a, b, c];
}

function finish(a, b, c) {
  c = (c ^ b) - rotate(b, 14);
  a = (a ^ c) - rotate(c, 11);
  b = (b ^ a) - rotate(a, 25);
  c = (c ^ b) - rotate(b, 16);
  a = (a ^ c) - rotate(c, 4);
  b = (b ^ a) - rotate(a, 14);
  return (c ^ b) - rotate(b, 24);
}

/** The partition of an order, of 16, in every topic and in the table of facts. */
export function partitionOf(id) {
  const key = BigInt(id);
  const start = (0x9e3779b9 + 4 + 3923095) | 0;
  const [a, b, c] = mix((start + 0x7a5b2236) | 0, (start + 0x7996dcfd) | 0, start);
  const folded = Number(BigInt.asIntN(32, key)) ^ Number(BigInt.asIntN(32, key >> 32n));
  // Of the 64 bits of the hash and of what Postgres adds to them, the lowest four decide.
  return (finish((a + folded) | 0, b, c) + 0x3) & 15;
}
