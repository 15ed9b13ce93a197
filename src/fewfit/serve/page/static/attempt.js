// A text, live.
import { address, call } from "./api.js";
import { announce, fill, h, field, percent, section } from "./dom.js";
import { bars } from "./parts.js";

const PAUSE = 250; // milliseconds without a key
const SHOWN = 8;

export function attempt(desk) {
  const texts = desk.state.fields.map((name) => h("textarea", { rows: 3, maxlength: 20000, name }));
  const told = h("div", { class: "told" });
  const element = section("Try a text", texts.map((text) => field(texts.length > 1 ? text.name : "Any text", text)), told);
  let timer = null;
  let latest = 0;
  let fitted = null;

  async function ask() {
    const mine = (latest += 1);
    if (!written()) {
      fill(told);
      return;
    }
    try {
      const { classes } = await call("POST", address(desk.name, "try"), { text: Object.fromEntries(texts.map((text) => [text.name, text.value])) });
      if (mine !== latest) return;
      const rows = classes.slice(0, SHOWN).map(({ label, probability }) => ({ label, value: probability, of: 1 }));
      fill(told, bars(rows, (row) => percent(row.value)));
      announce(`${rows[0].label}, ${percent(rows[0].value)}`);
    } catch (error) {
      if (mine === latest) fill(told, h("p", { class: "wrong" }, error.message));
    }
  }

  function written() {
    return texts.some((text) => text.value.trim());
  }

  element.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(ask, PAUSE);
  });
  return {
    element,
    update(state) {
      element.hidden = state.mine && !state.fitted;
      const now = state.result?.revision ?? null;
      if (now !== fitted && fitted !== null && written()) ask();
      fitted = now;
    },
  };
}
