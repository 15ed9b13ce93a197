// The texts that are worth a label, one key each.
import { address } from "./api.js";
import { announce, button, count, fill, h, section } from "./dom.js";
import { working } from "./parts.js";

const KEYS = "1234567890abcdefghijklmnopqrtvwxyz"; // s skips, u takes back

const WHY = {
  typical: "typical of many others",
  uncertain: "the classifier is unsure",
  "new class suspected": "perhaps a class of its own",
};

export function labelling(desk) {
  const reason = h("p", { class: "tag" });
  const text = h("p", { class: "text", id: "to-label" });
  const buttons = h("div", { class: "choices", role: "group", "aria-label": "Its label" });
  const skip = button([h("kbd", {}, "s"), " skip"], leave, { "aria-keyshortcuts": "s" });
  const back = button([h("kbd", {}, "u"), " undo"], undo, { "aria-keyshortcuts": "u" });
  const hint = h("small", { class: "keys" }, "Keys work while this box has the focus: click it, or reach it with Tab.");
  const left = h("small", {});
  const box = h("div", { class: "card label", tabindex: "0", role: "group", "aria-label": "Text to label", "aria-describedby": "to-label", on: { keydown } },
    reason, text, buttons, h("div", { class: "row" }, skip, back, left), hint);
  const empty = h("p", { tabindex: "-1" });
  const element = section("Label next", box, empty);
  const done = new Set(); // labelled here, and not yet known to the server
  const skipped = new Set();
  let current = null;
  let names = null;
  let queue = [];

  function choose() {
    const open = (item) => !done.has(item.place) && !skipped.has(item.place);
    if (current === null || done.has(current.place) || skipped.has(current.place)) current = queue.find(open) ?? null;
    const [inside, outside] = [box.contains(document.activeElement), document.activeElement === empty];
    box.hidden = current === null;
    empty.hidden = current !== null;
    if (current === null && inside) empty.focus();
    if (current === null) return;
    if (outside) box.focus();
    text.textContent = current.text;
    reason.textContent = WHY[current.reason] ?? current.reason ?? "taken back";
  }

  function next(done) {
    choose();
    say(desk.state);
    announce(current === null ? done : `${done}. Next: ${current.text}`);
  }

  function leave() {
    if (current === null) return;
    skipped.add(current.place);
    next("Skipped");
  }

  async function give(label) {
    if (current === null) return;
    const { place } = current;
    done.add(place);
    next(`Labelled ${label}`);
    if ((await desk.label(place, label)) === null) done.delete(place);
  }

  async function undo() {
    const state = await desk.act("POST", address(desk.name, "undo"));
    if (state === null) return;
    done.delete(state.row.place);
    skipped.delete(state.row.place);
    if (state.row.label === null) current = { ...state.row, reason: null };
    announce(`Taken back: ${state.row.text}`);
    choose();
    say(state);
  }

  function keydown(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
    const key = event.key.toLowerCase();
    const place = KEYS.indexOf(key);
    if (key === "s") leave();
    else if (key === "u") undo();
    else if (key.length === 1 && place >= 0 && place < names.length) give(names[place]);
    else return;
    event.preventDefault();
  }

  function say(state) {
    const n = state.blank - [...done].length;
    left.textContent = `${count(Math.max(state.blank, 0), "text")} without a label`;
    empty.textContent = state.blank === 0 ? "Every text has a label."
      : working(state) ? "Finding the texts that are worth a label…"
        : skipped.size && n > 0 ? "All that were suggested are labelled or skipped; fit again for others."
          : "After a fit, the texts that are worth a label come here.";
  }

  return {
    element,
    update(state) {
      const found = Object.keys(state.words).sort();
      if (JSON.stringify(found) !== JSON.stringify(names)) {
        names = found;
        fill(buttons, names.map((name, i) =>
          button([i < KEYS.length ? h("kbd", {}, KEYS[i]) : null, " ", name], () => give(name), { "aria-keyshortcuts": KEYS[i] ?? null })));
      }
      queue = state.result?.suggestions ?? [];
      for (const place of done) if (!queue.some((item) => item.place === place)) done.delete(place);
      choose();
      say(state);
    },
  };
}
