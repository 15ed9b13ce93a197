// All tasks, and a new one of a file.
import { address, call } from "./api.js";
import { announce, button, complain, count, field, fill, h, quiet, section } from "./dom.js";
import { bars, summary } from "./parts.js";

export async function home() {
  const state = await call("GET", "page/tasks");
  const list = state.tasks.length
    ? h("ul", { class: "tasks" }, state.tasks.map((task) =>
      h("li", {}, h("a", { href: `#/task/${encodeURIComponent(task.name)}` }, task.name), h("small", {}, summary(task)))))
    : h("p", {}, state.allow_fit ? "None yet: begin with a file below." : "None is served.");
  const rest = state.allow_fit ? create(state.models) : h("p", { class: "advice" }, state.off);
  return { element: h("div", {}, h("h1", {}, "Texts in, labels out"), section("Your tasks", list), rest) };
}

function create(models) {
  const after = h("div");
  const file = h("input", { type: "file", class: "unseen", accept: ".csv,.tsv,.txt,.json,.jsonl,.xlsx,.xls,.ods,.parquet" });
  const take = (blob, name) => read(blob, name, after, models);
  file.addEventListener("change", () => { if (file.files[0]) take(file.files[0], file.files[0].name); });
  const drop = h("div", { class: "drop" },
    h("p", {}, "Drop a file here: CSV, Excel, JSON or Parquet, with a line of column names"),
    h("label", { class: "button" }, file, "Choose a file"));
  for (const event of ["dragenter", "dragover"]) {
    drop.addEventListener(event, (e) => { e.preventDefault(); drop.classList.add("over"); });
  }
  for (const event of ["dragleave", "drop"]) drop.addEventListener(event, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (e) => {
    e.preventDefault();
    if (e.dataTransfer.files[0]) take(e.dataTransfer.files[0], e.dataTransfer.files[0].name);
  });
  const pasted = h("textarea", { rows: 6, spellcheck: "false", placeholder: "text,label\nWhere is my order?,shipping\n…" });
  const paste = h("details", {}, h("summary", {}, "Or paste rows, as they come from a spreadsheet"),
    field("Rows, with a first line of column names", pasted),
    button("Read these rows", () => take(new Blob([pasted.value]), "pasted.csv")));
  return section("New task", drop, paste, after);
}

async function read(blob, name, after, models) {
  quiet();
  try {
    const found = await call("POST", `page/read?${new URLSearchParams({ file: name })}`, blob);
    fill(after, preview(found, blob, models));
    announce(`${name}: ${count(found.n, "row")}`);
    after.querySelector("h3").focus();
  } catch (error) {
    fill(after);
    complain(error);
  }
}

function preview(found, blob, models) {
  const names = found.columns.map((column) => column.name);
  const table = h("div", { class: "wide", role: "region", tabindex: "0", "aria-label": "First rows" },
    h("table", { class: "texts" }, h("caption", {}, "First rows"),
      h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, found.rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))))));
  const texts = names.map((name) => h("label", { class: "check" }, h("input", { type: "checkbox", value: name, checked: found.text.includes(name) }), name));
  const label = h("select", {}, h("option", { value: "" }, "none yet"), names.map((name, i) => h("option", { value: i }, name)));
  label.value = found.label === null ? "" : String(names.indexOf(found.label));
  const shares = h("div");
  const showLabels = () => {
    const own = label.value === "" ? null : found.columns[Number(label.value)].labels;
    fill(shares, label.value === "" ? h("p", {}, "You name the classes next, and label by keys.")
      : own === null ? h("p", {}, "This column has many different values: hardly labels.")
        : [h("h4", {}, `${count(own.counts.length, "class", "classes")}${own.blank ? `, ${count(own.blank, "row")} without a label` : ""}`),
          bars(own.counts.map(([name, n]) => ({ label: name, value: n })))]);
  };
  label.addEventListener("change", showLabels);
  showLabels();
  const stem = found.file.replace(/\.[^.]*$/, "").replace(/[^A-Za-z0-9_-]+/g, "-").replace(/^[-_]+|-+$/g, "");
  const name = h("input", { value: (found.file === "pasted.csv" ? "" : stem).slice(0, 64), required: true, pattern: "[A-Za-z0-9][A-Za-z0-9_\\-]{0,63}", maxlength: 64, autocomplete: "off", spellcheck: "false" });
  const model = h("select", {}, models.map((spec) => h("option", { value: spec }, spec)));
  const form = h("form", { class: "card" },
    h("h3", { tabindex: "-1" }, `${found.file}: ${count(found.n, "row")}`),
    found.said.map((line) => h("p", {}, line)),
    table,
    h("fieldset", {}, h("legend", {}, "The text is in"), texts),
    field("The labels are in", label),
    shares,
    field("Name of the task", name, "Letters, digits, - and _"),
    models.length > 1 ? field("Frozen model", model) : null,
    h("p", { class: "row" }, h("button", { class: "main" }, "Create the task")));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    quiet();
    const query = new URLSearchParams({ name: name.value, file: found.file, model: models.length > 1 ? model.value : models[0] });
    for (const box of form.querySelectorAll("input:checked")) query.append("text", box.value);
    if (label.value !== "") query.append("label", names[Number(label.value)]);
    try {
      const made = await call("POST", `page/tasks?${query}`, blob);
      announce(`The task ${made.name} is there`);
      location.hash = address(made.name).replace("page/tasks", "#/task");
    } catch (error) {
      complain(error);
    }
  });
  return form;
}
