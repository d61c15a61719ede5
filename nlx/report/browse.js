"use strict";
(() => {
  const PAGE = 50;
  const by = (id) => document.getElementById(id);
  const data = JSON.parse(by("data").textContent);
  const controls = by("controls"), status = by("status"), pager = by("pager"), list = by("list");
  const fields = controls.elements, [back, on] = pager.querySelectorAll("button");
  // A row of the data: row, further columns, given, score, proposed, sure, changed, given classes, proposed classes, true.
  const rows = data.rows.map((row, rank) => ({
    rank, row: row[0], extra: row[1], given: row[2], score: row[3], proposed: row[4], sure: row[5],
    changed: row[6], from: row[7], to: row[8], truth: row[9], picture: data.pictures[rank] || "",
    text: [row[0], ...row[1], row[2], row[4]].join(" ").toLowerCase(),
  }));
  const selected = new Set();
  let found = rows, page = 0;

  const element = (name, content, attributes = {}) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    for (const part of [].concat(content)) made.append(part);  // text stays text
    return made;
  };
  const percent = (p) => (100 * p).toFixed(1) + "%";

  for (const name of ["given", "proposed"])
    data.classes.forEach((text, i) => fields[name].append(element("option", text, { value: i })));

  const header = [...(data.pictures.length ? ["Picture"] : []), "Row", ...data.extra, "Given", "p(given)", "Proposed",
    "p(proposed)", ...(data.true ? ["True"] : [])];
  const numeric = new Set(["Row", "p(given)", "p(proposed)"]);

  const picture = (row) => row.picture
    ? [element("img", [], { src: row.picture, alt: "example " + row.row, loading: "lazy", width: 72, height: 72,
      class: data.large ? "large" : "" })] : [];

  const line = (row) => {
    const box = element("input", [], { type: "checkbox", "aria-label": "select row " + row.row });
    box.checked = selected.has(row.rank);
    box.addEventListener("change", () => {
      box.checked ? selected.add(row.rank) : selected.delete(row.rank);
      tell();
    });
    const proposed = element("span", row.proposed, { class: row.changed ? "added" : "soft" });
    return element("tr", [
      element("td", box),
      ...(data.pictures.length ? [element("td", picture(row))] : []),
      element("td", String(row.row), { class: "number" }),
      ...row.extra.map((text) => element("td", text)),
      element("td", row.given), element("td", percent(row.score), { class: "number" }),
      element("td", proposed), element("td", percent(row.sure), { class: "number" }),
      ...(data.true ? [element("td", row.truth)] : []),
    ]);
  };

  const orders = {
    rank: (a, b) => a.rank - b.rank, "-rank": (a, b) => b.rank - a.rank, "-sure": (a, b) => b.sure - a.sure,
    given: (a, b) => a.given.localeCompare(b.given), proposed: (a, b) => a.proposed.localeCompare(b.proposed),
    row: (a, b) => a.row - b.row,
  };

  const tell = () => {
    const first = page * PAGE, last = Math.min(found.length, first + PAGE);
    status.textContent = (found.length ? `${first + 1} to ${last} of ${found.length}` : "none of these") +
      (found.length < rows.length ? `, of ${rows.length} in this page` : " in this page") + `; ${selected.size} selected`;
  };

  const draw = () => {
    const head = element("tr", [element("th", "Select", { scope: "col" }),
      ...header.map((name) => element("th", name, { scope: "col", class: numeric.has(name) ? "number" : "" }))]);
    const shown = found.slice(page * PAGE, (page + 1) * PAGE);
    const table = element("table", [element("caption", "Suspicious labels"), element("thead", head),
      element("tbody", shown.map(line))], { class: "labels" });
    list.replaceChildren(element("div", table, { class: "scroll", tabindex: 0, role: "region",
      "aria-label": "Suspicious labels" }));
    back.disabled = page === 0;
    on.disabled = (page + 1) * PAGE >= found.length;
    tell();
  };

  const search = () => {
    const given = fields.given.value, proposed = fields.proposed.value, text = fields.text.value.toLowerCase();
    found = rows.filter((row) => (!given || row.from.includes(+given)) && (!proposed || row.to.includes(+proposed)) &&
      (!fields.changed.checked || row.changed) && (!text || row.text.includes(text)));
    found = found.slice().sort(orders[fields.order.value]);
    page = 0;
    draw();
  };

  const quoted = (value) => `"${String(value).replaceAll('"', '""')}"`;
  const save = () => {
    const taken = selected.size ? rows.filter((row) => selected.has(row.rank)) : found;
    const names = ["row", ...data.extra.map((name) => name.toLowerCase()), "given", "proposed", "changed", "p_given",
      "p_proposed"];
    const lines = taken.map((row) => [row.row, ...row.extra, row.given, row.proposed, row.changed, row.score, row.sure]);
    const text = [names, ...lines].map((cells) => cells.map(quoted).join(",")).join("\r\n") + "\r\n";
    const link = element("a", [], { download: "selected_labels.csv",
      href: URL.createObjectURL(new Blob([text], { type: "text/csv" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  const turn = (pages) => { page += pages; draw(); status.focus(); status.scrollIntoView({ block: "nearest" }); };
  const actions = {
    everything: () => { controls.reset(); search(); },
    select: () => { found.forEach((row) => selected.add(row.rank)); draw(); },
    none: () => { selected.clear(); draw(); },
    save,
  };
  for (const [name, action] of Object.entries(actions)) fields[name].addEventListener("click", action);
  controls.addEventListener("input", search);
  controls.addEventListener("submit", (event) => event.preventDefault());
  back.addEventListener("click", () => turn(-1));
  on.addEventListener("click", () => turn(1));
  for (const button of document.querySelectorAll("button[data-given]"))
    button.addEventListener("click", () => {
      controls.reset();
      [fields.given.value, fields.proposed.value] = [button.dataset.given, button.dataset.proposed];
      fields.changed.checked = true;
      search();
      status.focus();
      status.scrollIntoView();
    });
  controls.hidden = pager.hidden = false;
  search();
})();
