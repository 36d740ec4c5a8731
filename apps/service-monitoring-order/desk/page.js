// What views ask of the page around them.

let draw = () => {};
let isDue = false;

export const drawBy = (drawer) => (draw = drawer);

/** Draws the page again, once however often it is asked for. */
export function refresh() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    draw();
  });
}

/** Tells it to screen readers. */
export function say(text) {
  document.getElementById('said').textContent = text;
}

export const go = (hash) => (location.hash = hash);

/** What a request has read, or why it failed. */
export class Reading {
  data;
  problem;
  isReading = false;
  #turn = 0;
  #again;

  /** An answer that comes after a later question is dropped. */
  async read(ask) {
    const turn = (this.#turn += 1);
    this.#again = () => this.read(ask);
    this.isReading = true;
    refresh();
    const settle = (data, problem) => {
      if (turn !== this.#turn) return;
      [this.data, this.problem, this.isReading] = [data ?? this.data, problem, false];
      refresh();
    };
    await ask().then(
      (data) => settle(data),
      (problem) => settle(undefined, problem),
    );
  }

  again = () => this.#again?.();

  forget() {
    this.#turn += 1;
    [this.data, this.problem, this.isReading] = [];
  }
}
