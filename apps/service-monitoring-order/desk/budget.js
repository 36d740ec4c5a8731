// How often the page asks: less while streams cost the service too much or requests are refused, and
// more again afterwards.

/** The share of a core that all streams may take, as `budget.rs` in service-monitoring-order has it. */
export const SHARE = 0.05;
const SLOWEST = 16;
/** How long one pace is kept: what it changes takes a while to show. */
const KEEP = 10_000;

export const USUAL = { slowdown: 1, since: -KEEP };

/** The pace from `now`, a time in ms, on. `share` is what streams take of a core; `isShed`, whether a
 * request was refused for want of room. Pure. */
export function pace(before, { share, isShed, now }) {
  const change = (slowdown) => (slowdown === before.slowdown && !isShed ? before : { slowdown, since: now });
  const isSettled = now - before.since >= KEEP;
  // A refusal is answered at once, but several that come together are one.
  if (isShed) return isSettled || before.slowdown === 1 ? change(Math.min(SLOWEST, before.slowdown * 2)) : change(before.slowdown);
  if (!isSettled) return before;
  return change(share > SHARE ? Math.min(SLOWEST, before.slowdown * 2) : Math.max(1, before.slowdown / 2));
}

/** This page's pace. */
export const budget = {
  pace: USUAL,
  isShed: false,
  look(share, now) {
    this.pace = pace(this.pace, { share, isShed: this.isShed, now });
    this.isShed = false;
  },
  slowed(ms) {
    return ms * this.pace.slowdown;
  },
};
