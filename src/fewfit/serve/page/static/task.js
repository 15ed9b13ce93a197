// One task: its parts are made once, and told when anything has changed.
import { address, call } from "./api.js";
import { announce, button, complain, count, fill, h, percent, quiet, section } from "./dom.js";
import { attempt } from "./attempt.js";
import { classes } from "./classes.js";
import { labelling } from "./labelling.js";
import { interval, matrix, working } from "./parts.js";
import { doubts, everything } from "./review.js";
import { take } from "./take.js";

const EVERY = 400; // milliseconds between looks at a fit

export async function task(name) {
  const first = await call("GET", address(name));
  if (!first.mine) return served(first);
  let gone = false;
  let timer = null;
  let busy = false;
  let turn = Promise.resolve(); // what is done goes to the server in its order
  const desk = {
    name,
    state: first,
    // Do something that answers with the new state; an error is said, and nothing changes.
    act(method, path, body) {
      turn = turn.then(async () => {
        quiet();
        try {
          const state = await call(method, path, body);
          tell(state);
          return state;
        } catch (error) {
          complain(error);
          return null;
        }
      });
      return turn;
    },
    label: (place, label) => desk.act("PUT", address(name, "rows", place), { label }),
  };
  const parts = [expected(desk), labelling(desk), doubts(desk), confusion(desk), everything(desk)];
  const aside = [attempt(desk), classes(desk), take(desk)];
  const element = h("div", { class: "task" }, h("h1", {}, name), parts[0].element,
    h("div", { class: "columns" }, h("div", {}, parts.slice(1).map((part) => part.element)), h("div", {}, aside.map((part) => part.element))));

  function tell(state) {
    if (gone) return;
    const was = desk.state;
    if (state.revision >= was.revision) { // else it was asked for before what is shown
      desk.state = state;
      for (const part of [...parts, ...aside]) part.update(state, was);
    }
    clearTimeout(timer);
    if (working(desk.state)) timer = setTimeout(look, EVERY);
  }

  async function look() {
    if (busy) return;
    busy = true;
    try {
      tell(await call("GET", address(name)));
    } catch (error) {
      if (gone) return;
      complain(error);
      timer = setTimeout(look, 10 * EVERY);
    } finally {
      busy = false;
    }
  }

  tell(first);
  return { element, leave: () => { gone = true; clearTimeout(timer); } };
}

function served(state) {
  const part = attempt({ name: state.name, state });
  part.update(state, state);
  return {
    element: h("div", { class: "task" }, h("h1", {}, state.name), part.element,
      h("p", {}, state.off || "This task was fitted elsewhere; the page has none of its texts.")),
  };
}

// The accuracy to expect, and the button that fits.
function expected(desk) {
  const path = address(desk.name, "fit");
  const said = h("div", { class: "said" });
  const progress = h("progress", { "aria-label": "Texts answered" });
  const start = button("Fit", () => desk.act("POST", path), { class: "main" });
  const stop = button("Cancel", () => desk.act("DELETE", path));
  const note = h("p", { class: "note" });
  const element = h("section", { class: "advice", tabindex: "-1", "aria-label": "Accuracy to expect" }, said,
    h("div", { class: "row" }, start, stop, progress, note));
  let shown = "";

  function update(state, was) {
    const { result, job } = state;
    const text = JSON.stringify(result && [result.revision, result.sentences]);
    if (text !== shown) {
      shown = text;
      fill(said, result === null ? begin(state) : [headline(result), result.sentences.slice(1).map((line) => h("p", {}, line))]);
    }
    const on = working(state);
    const focused = document.activeElement;
    start.hidden = on || !state.stale;
    start.disabled = Object.keys(state.words).length < 2;
    start.textContent = result === null ? "Fit" : "Fit again";
    stop.hidden = progress.hidden = !on;
    if (focused === start && start.hidden) (stop.hidden ? element : stop).focus();
    if (focused === stop && stop.hidden) (start.hidden ? element : start).focus();
    stop.disabled = on && job.state === "cancelling";
    progress.max = on && job.total ? job.total : 1;
    if (on && job.total) progress.value = Math.min(job.done, job.total);
    else progress.removeAttribute("value");
    note.textContent = remark(state, on);
    note.classList.toggle("wrong", !on && job !== null && job.state === "failed");
    if (working(was) && !on) {
      const worth = result?.expected?.accuracy ?? null;
      announce(job.state === "done" ? `Fitted. ${worth === null ? "" : `Accuracy to expect ${percent(worth)}, `}${count(result.examples, "label")}` : note.textContent);
    }
  }
  return { element, update };
}

function headline(result) {
  const told = result.expected;
  if (!told || told.accuracy === null) return h("p", { class: "headline" }, result.sentences[0]);
  return [
    h("p", { class: "headline" }, "Accuracy to expect: ", h("b", {}, percent(told.accuracy)), `, between ${percent(told.low)} and ${percent(told.high)}`),
    interval(told),
    h("p", {}, `95% interval (Wilson) from ${count(told.n, "labelled text")}, each held out once (${told.n_folds}-fold cross-validation)`),
  ];
}

function begin(state) {
  const n = Object.keys(state.words).length;
  const text = n < 2
    ? "Name two classes or more under “Classes and label words”, then fit: no label is needed to begin."
    : state.labelled === 0
      ? "Nothing is labelled yet. Fit, and the texts that are worth labelling first are shown."
      : `${count(state.labelled, "text")} with a label, ${count(n, "class", "classes")}. Fit to see the accuracy to expect.`;
  return h("p", { class: "headline" }, text);
}

function remark(state, on) {
  const { job, result } = state;
  if (on && job.state === "cancelling") return "Cancelling…";
  if (on) return job.state === "waiting" ? "Waiting for another fit…" : "The model reads the texts; answers are kept, and none is paid for twice.";
  if (job?.state === "failed") return job.error;
  if (job?.state === "cancelled" && state.stale) return "Cancelled; what was answered is kept.";
  if (result === null) return "";
  if (state.stale) return "Labels or words have changed since the last fit.";
  return `Fitted in ${result.seconds.toFixed(1)} s; ${Math.ceil(result.bytes / 1024)} KB.`;
}

function confusion() {
  const inside = h("div");
  const element = section("Where it is wrong", inside);
  let shown = null;
  return {
    element,
    update({ result }) {
      const own = result?.confusion ?? null;
      element.hidden = own === null;
      const text = JSON.stringify(own);
      if (own !== null && text !== shown) fill(inside, matrix(own));
      shown = text;
    },
  };
}
