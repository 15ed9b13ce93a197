// Labels to look at again, and all texts.
import { address, call } from "./api.js";
import { button, complain, count, field, fill, h, section } from "./dom.js";

const FEW = 3;

function picker(state, row, change) {
  const names = Object.keys(state.words).sort();
  const select = h("select", { "aria-label": `Label of: ${row.text.slice(0, 80)}` },
    h("option", { value: "" }, "–"), names.map((name, i) => h("option", { value: i }, name)));
  select.value = row.label === null ? "" : String(names.indexOf(row.label));
  const kept = select.value;
  select.addEventListener("change", async () => {
    const done = await change(select.value === "" ? null : names[Number(select.value)]);
    if (done === null) select.value = kept;
  });
  return select;
}

export function doubts(desk) {
  const list = h("ul", { class: "doubts" });
  const more = button("", () => { many = true; shown = null; draw(desk.state); });
  const element = section("Labels to look at again", h("p", {}, "Held out, these texts are given another label by all the others. Some are hard; some are slips."), list, more);
  let shown = null;
  let many = false;

  function draw({ result }) {
    const own = result?.doubts ?? [];
    element.hidden = own.length === 0;
    const text = JSON.stringify(own);
    if (text === shown) return;
    shown = text;
    const focused = list.contains(document.activeElement);
    fill(list, own.slice(0, many ? own.length : FEW).map((row) => h("li", {},
      h("p", { class: "text" }, row.text),
      h("div", { class: "row" },
        h("span", {}, "labelled ", h("b", {}, row.label), ", others say ", h("b", {}, row.told)),
        button(["Change to ", row.told], () => desk.label(row.place, row.told)),
        button([row.label, " is right"], () => desk.label(row.place, row.label))))));
    more.hidden = many || own.length <= FEW;
    more.textContent = `Show ${count(own.length - FEW, "other")}`;
    if (focused) list.querySelector("button")?.focus();
  }
  return { element, update: draw };
}

export function everything(desk) {
  const search = h("input", { type: "search", autocomplete: "off" });
  const which = h("select", {});
  const body = h("tbody");
  const where = h("span", { "aria-live": "polite" });
  const before = button("Previous", () => turn(-1));
  const after = button("Next", () => turn(1));
  const table = h("div", { class: "wide", role: "region", tabindex: "0", "aria-label": "All texts" },
    h("table", { class: "texts" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "text"), h("th", { scope: "col" }, "label"))), body));
  const details = h("details", {}, h("summary", {}, "Search them, and correct any label"),
    h("div", { class: "row filters" }, field("Search", search), field("Show", which)), table, h("div", { class: "row" }, before, after, where));
  const element = section("All texts", details);
  let offset = 0;
  let size = 50;
  let names = null;
  let latest = 0;

  function turn(way) {
    offset = Math.max(0, offset + way * size);
    load();
  }

  async function load() {
    const mine = (latest += 1);
    const query = new URLSearchParams({ offset, search: search.value });
    if (which.value === "blank") query.set("blank", "true");
    else if (which.value !== "") query.set("label", names[Number(which.value)]);
    try {
      const found = await call("GET", `${address(desk.name, "rows")}?${query}`);
      if (mine !== latest) return;
      size = Math.max(found.rows.length, 1);
      fill(body, found.rows.map((row) => h("tr", {}, h("td", {}, row.text), h("td", {}, picker(desk.state, row, (label) => desk.label(row.place, label))))));
      where.textContent = found.n ? `${(found.offset + 1).toLocaleString("en")} to ${found.offset + found.rows.length} of ${found.n.toLocaleString("en")}` : "none";
      before.disabled = offset === 0;
      after.disabled = found.offset + found.rows.length >= found.n;
    } catch (error) {
      complain(error);
    }
  }

  let timer = null;
  search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => { offset = 0; load(); }, 250); });
  which.addEventListener("change", () => { offset = 0; load(); });
  details.addEventListener("toggle", () => { if (details.open) load(); });
  return {
    element,
    update(state, was) {
      const found = Object.keys(state.words).sort();
      if (JSON.stringify(found) !== JSON.stringify(names)) {
        names = found;
        fill(which, h("option", { value: "" }, "all"), h("option", { value: "blank" }, "without a label"), names.map((name, i) => h("option", { value: i }, name)));
      }
      if (details.open && state.revision !== was.revision && !body.contains(document.activeElement)) load();
    },
  };
}
