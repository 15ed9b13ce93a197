// The classes: how many labels each has, and the words that the model reads for it.
import { address } from "./api.js";
import { announce, button, count, fill, h, percent, section } from "./dom.js";

export function classes(desk) {
  const body = h("tbody");
  const caption = h("caption");
  const save = h("button", { class: "main" }, "Save the words");
  const reset = button("Reset", () => draw(desk.state));
  const form = h("form", { on: { submit: keep, focusin: remember, input: () => mark(true) } },
    h("div", { class: "wide" }, h("table", { class: "classes" }, caption,
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "class"), h("th", { scope: "col" }, "label words"), h("th", { scope: "col" }, "labels"))), body)),
    h("p", { class: "row" }, save, reset));
  const added = h("input", { id: "new-class", maxlength: 200, autocomplete: "off" });
  const add = h("form", { class: "row", on: { submit: extend } }, h("label", { for: "new-class" }, "Another class"), added, h("button", {}, "Add"));
  const element = section("Classes and label words", h("p", {}, "Several words with commas between. Words that people would use help most while labels are few."), form, add);
  let shown = null;
  let edited = null;

  function remember(event) {
    if (event.target.name) edited = event.target.name;
  }

  function mark(changed) {
    save.hidden = reset.hidden = !changed;
  }

  function draw(state) {
    const names = Object.keys(state.words).sort();
    const last = body.contains(document.activeElement) || document.activeElement === save ? edited : null;
    const largest = Math.max(1, ...Object.values(state.counts));
    form.hidden = names.length === 0;
    caption.textContent = `${count(state.labelled, "label")}, ${count(state.blank, "text")} without one`;
    fill(body, names.map((name) => h("tr", {},
      h("th", { scope: "row" }, name),
      h("td", {}, h("input", { name, value: state.words[name].join(", "), "aria-label": `Label words of ${name}`, spellcheck: "false", autocomplete: "off" })),
      h("td", { class: "share", vars: { "--share": (state.counts[name] ?? 0) / largest } },
        h("span", { class: "bar", "aria-hidden": "true" }), `${state.counts[name] ?? 0}`,
        h("span", { class: "unseen" }, state.labelled ? `, ${percent((state.counts[name] ?? 0) / state.labelled)}` : ""),
        state.counts[name] ? null : button("Remove", () => change(without(name)).then(() => added.focus()), { "aria-label": `Remove the class ${name}` })))));
    mark(false);
    [...body.querySelectorAll("input")].find((input) => input.name === last)?.focus();
  }

  function written() {
    return Object.fromEntries([...body.querySelectorAll("input")].map((input) =>
      [input.name, input.value.split(",").map((word) => word.trim()).filter(Boolean)]));
  }

  function without(name) {
    return Object.fromEntries(Object.entries(written()).filter(([other]) => other !== name));
  }

  async function change(words) {
    shown = null;
    if ((await desk.act("PUT", address(desk.name, "words"), { words })) === null) return false;
    announce("The classes are saved");
    return true;
  }

  function keep(event) {
    event.preventDefault();
    change(written());
  }

  async function extend(event) {
    event.preventDefault();
    const name = added.value.trim();
    if (!name) return;
    if (Object.hasOwn(desk.state.words, name)) {
      added.select();
      return;
    }
    if (await change({ ...written(), [name]: [] })) {
      added.value = "";
      added.focus();
    }
  }

  return {
    element,
    update(state) {
      const text = JSON.stringify([state.words, state.counts, state.blank]);
      const editing = !save.hidden && shown !== null; // what is being written is not taken away
      if (text === shown || editing) return;
      shown = text;
      draw(state);
    },
  };
}
