/* The report page: clusters at every radius, a person's choices, and files of decisions. It requests nothing.
 * Nodes are rows that have a partner, numbered by rank: the representative of a cluster is its smallest node. Pairs are
 * sorted, nearest first: those within a radius are the first ones. */
"use strict";
// Functions without state, which tests call.
globalThis.imgmatchReport = Object.freeze({
  /** Return how many of the sorted pairs hold: within a distance, or with at least so many votes. */
  countPairs(measures, value, isVotes) {
    const end = measures.findIndex((measure) => (isVotes ? measure < value : measure > value));
    return end < 0 ? measures.length : end;
  },
  /** Return the representative of each node, the pair by which it joined that, and the pairs that joined clusters. */
  connectedClusters(n, a, b, count, skipped) {
    const root = new Int32Array(n).map((_, node) => node);
    const [above, links, via] = [0, 1, 2].map(() => new Int32Array(n).fill(-1));
    const find = (x) => { for (; root[x] !== x; x = root[x]) root[x] = root[root[x]]; return x; };
    for (let pair = 0; pair < count; pair++) {
      if (skipped[a[pair]] || skipped[b[pair]]) continue;
      const [left, right] = [find(a[pair]), find(b[pair])];
      const high = Math.max(left, right);
      if (left !== right) [root[high], above[high], links[high]] = [left + right - high, left + right - high, pair];
    }
    above.forEach((up, node) => {
      if (up >= 0) [root[node], via[node]] = [root[up], above[up] < 0 ? links[node] : via[up]];
    });
    return { root, via, links };
  },
  /** Return the same for stars: a node in no cluster founds one, and takes its partners that are in none. */
  starClusters(n, a, b, count, skipped) {
    const pairsOf = Array.from({ length: n }, () => []);
    for (let pair = 0; pair < count; pair++) for (const node of [a[pair], b[pair]]) pairsOf[node].push(pair);
    const [root, via] = [0, 1].map(() => new Int32Array(n).fill(-1));
    for (let node = 0; node < n; node++) {
      if (root[node] >= 0) continue;
      root[node] = node;
      for (const pair of skipped[node] ? [] : pairsOf[node]) {
        const other = a[pair] + b[pair] - node;
        if (root[other] < 0 && !skipped[other]) [root[other], via[other]] = [node, pair];
      }
    }
    return { root, via, links: via };
  },
  /** Return the clusters of at least two nodes, each as its nodes in order. */
  gatherClusters(root) {
    const clusters = new Array(root.length);
    root.forEach((first, node) => first === node || (clusters[first] ??= [first]).push(node));
    return clusters.filter(Boolean);
  },
  /** Return the numbers of clusters by representative, as the frame has them: a row without a partner is a cluster. */
  numberClusters(root, skipped, byRow, row) {
    const numbers = new Map();
    let nOthers = 0;
    for (const node of byRow) {
      if (skipped[node] || numbers.has(root[node])) nOthers++;
      else numbers.set(root[node], row[node] - nOthers);
    }
    return numbers;
  },
  /** Return a text as what it has in common with another at the start, what differs, and the rest. */
  differingPart(text, other) {
    const [left, right] = [[...text], [...other]];
    let [start, end] = [0, left.length];
    while (start < end && left[start] === right[start]) start++;
    for (let i = right.length; end > start && i > start && left[end - 1] === right[i - 1]; i--) end--;
    return [left.slice(0, start), left.slice(start, end), left.slice(end)].map((part) => part.join(""));
  },
  /** Return objects as CSV (RFC 4180) with these columns; null is an empty field. */
  toCsv(names, rows) {
    const field = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
    const values = rows.map((row) => names.map((name) => String(row[name] ?? "")));
    return [names, ...values].map((fields) => `${fields.map(field).join(",")}\n`).join("");
  },
  /** Return the rows of a CSV text (RFC 4180) as objects of texts. */
  parseCsv(text) {
    const lines = [[]];
    for (const field = /(?:"((?:[^"]|"")*)"|([^",\r\n][^,\r\n]*)?)(,|\r?\n|\r|$)/y; field.lastIndex < text.length;) {
      const [, quoted, plain, end] = field.exec(text) ?? [];
      if (end === undefined) throw new Error(`a quote of row ${lines.length} is not in pairs`);
      lines.at(-1).push(quoted?.replaceAll('""', '"') ?? plain ?? "");
      if (end !== ",") lines.push([]);
    }
    const [names, ...rows] = lines.filter((fields) => fields.length > 1 || fields[0]);
    return rows.map((row) => Object.fromEntries(names.map((name, i) => [name, row[i] ?? ""])));
  },
  /** Return seconds since 1970 as UTC with microseconds. */
  timeText(seconds) {
    const microseconds = Math.round(seconds * 1e6);
    const fraction = ((microseconds % 1e6) + 1e6) % 1e6;
    const whole = new Date((microseconds - fraction) / 1000).toISOString().slice(0, 19);
    return `${whole}.${String(fraction).padStart(6, "0")}+0000`;
  },
});

(async () => {
  const pure = globalThis.imgmatchReport;
  const [PER_PAGE, PER_CLUSTER, N_LINKS, N_REFERENCE] = [20, 12, 20, 200];
  const $ = (id) => document.getElementById(id);
  const on = (id, event, action) => $(id).addEventListener(event, action);
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const clone = (id, properties) => Object.assign($(id).content.firstElementChild.cloneNode(true), properties);
  /** Set contents of parts of an element: by selector a text, an element, or a list of them. */
  const fill = (element, parts) => {
    Object.entries(parts).forEach(([part, of]) => element.querySelector(part).replaceChildren(...[of].flat()));
    return element;
  };
  addEventListener("unhandledrejection", ({ reason }) => fill(document, { "#notice": String(reason) }));
  if (!globalThis.DecompressionStream) return; // the page says so, until the notice is removed
  const about = JSON.parse($("about").textContent);
  const isVotes = about.measure === "votes";
  const { format: decimal } = new Intl.NumberFormat("en");
  const counted = (value, noun) => `${decimal(value)} ${noun}${value === 1 ? "" : "s"}`;
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const inUnits = (value) => counted(value, isVotes ? "vote" : "bit");
  const inBytes = (value) => (value < 1e6 ? `${Math.round(value / 1e3)} kB`
    : value < 1e9 ? `${(value / 1e6).toFixed(1)} MB` : `${(value / 1e9).toFixed(1)} GB`);

  // The data, with nodes in the order of their rank.
  const fromBase64 = (text) => Uint8Array.fromBase64?.(text)
    ?? Uint8Array.from(atob(text), (byte) => byte.charCodeAt(0));
  const unpack = (id) => new Response(new Blob([fromBase64($(id).textContent)]).stream()
    .pipeThrough(new DecompressionStream("gzip"))).json();
  const [{ rank, identical_files: identical, apart, ...columns }, { measure: measures, ...pairs }] =
    await Promise.all(["rows", "pairs"].map(unpack));
  const n = rank.length;
  const byRow = Int32Array.from(rank); // the nodes in the order of the frame, and of the page
  const places = new Int32Array(n); // the place of each node in that order
  byRow.forEach((node, place) => { places[node] = place; });
  const inOrder = ([name, values]) => [name, values && Array.from(places, (place) => values[place])];
  const rows = Object.fromEntries(Object.entries(columns).map(inOrder));
  const [pairA, pairB] = [pairs.a, pairs.b].map((nodes) => Int32Array.from(nodes, (place) => rank[place]));
  const firstOf = new Map((identical ?? []).map(([first, other]) => [rank[other], rank[first]]));
  const fileOf = (node) => firstOf.get(node) ?? node; // equal for identical files
  const valueOf = (name, node) => rows[name]?.[node] ?? null;
  const nameOf = (node) => valueOf("path", node) ?? rows.id[node];
  const fileName = (node) => nameOf(node).split(/[\\/]/).at(-1);
  const folderOf = (node) => nameOf(node).split(/[\\/]/).slice(0, -1).join("/");
  const thumbnails = new Map(); // lists of base64, parsed when they are needed
  const image = (place, name) => {
    const [list, i] = [Math.floor(place / about.thumbnails.page_size), place % about.thumbnails.page_size];
    if (place >= 0 && !thumbnails.has(list)) thumbnails.set(list, JSON.parse($(`thumbnails-${list}`).textContent));
    const data = thumbnails.get(list)?.[i];
    return data ? make("img", { src: `data:image/webp;base64,${data}`, alt: name, decoding: "async" })
      : make("span", { className: "missing", role: "img", ariaLabel: name }, "no thumbnail");
  };
  const imageOf = (node) => image(rows.place[node], fileName(node));
  const hashes = fromBase64($("hashes").textContent);
  const hashOf = (node) => hashes.subarray(...[0, 1].map((end) => ((places[node] + end) * hashes.length) / n));
  const nBits = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll("0", "").length);
  const bitsBetween = (a, b, other = hashOf(b)) => sum(hashOf(a).map((byte, i) => nBits[byte ^ other[i]]));
  const findPair = (x, y) => pairA.findIndex((a, i) => (a === x && pairB[i] === y) || (a === y && pairB[i] === x));
  /** Return the distance or votes of a node and its representative; null where the page does not have the votes. */
  const measureOf = (node, first) => {
    const via = found.via[node];
    if (pairA[via] + pairB[via] === node + first && [pairA[via], pairB[via]].includes(node)) return measures[via];
    return hashes.length ? bitsBetween(node, first) : measures[findPair(node, first)] ?? null;
  };

  // What a person chose: nodes that are kept or removed, reviewed nodes, and pairs of nodes that are no duplicates.
  const choices = { kept: new Map(), reviewed: new Map(), apart: new Map() };
  const keyOf = (a, b) => `${Math.min(a, b)} ${Math.max(a, b)}`;
  const idsOf = (a, b) => ({ left_id: rows.id[a], right_id: rows.id[b] });
  for (const [a, b] of apart ?? []) choices.apart.set(keyOf(rank[a], rank[b]), idsOf(rank[a], rank[b])); // given ones
  const changes = [];
  const kept = new Uint8Array(n);
  let [radius, found, clusters, shown, page] = [about.chosen, null, [], [], 0];
  let [current, compared, chart] = [null, null, null]; // the card of the keys, two nodes, and the plot
  const storage = (() => { try { return localStorage; } catch { return null; } })(); // a sandboxed frame has none
  const store = () => {
    const entries = Object.entries(choices).flatMap(([what, map]) => [...map].map((entry) => [what, ...entry]));
    try { storage?.setItem(about.digest, JSON.stringify({ radius, entries })); } catch { /* it is full */ }
  };
  const choose = (entries) => {
    for (const [what, key, value] of entries) choices[what].set(key, value);
    for (const step of found ? [tally, drawChoices, store] : []) step();
  };
  const change = (entries) => {
    changes.push(entries.map(([what, key]) => [what, key, choices[what].get(key)]));
    choose(entries);
  };
  const changeAll = (what, { nodes }, choice) => change(nodes.map((node) => [what, node, choice(node)]));
  const isApart = (a, b) => Boolean(choices.apart.get(keyOf(a, b)));
  const isChosen = (node) => (choices.kept.get(node) ?? null) !== null;
  const isReviewed = ({ nodes }) => nodes.every((node) => choices.reviewed.get(node));
  const toggle = ({ node, group }) => change([["kept", node, group.isEmpty || !kept[node]]]);
  const review = ({ group }, value = !isReviewed(group)) => changeAll("reviewed", group, () => value);
  const setApart = (a, b) => {
    const [first, node, ids] = [Math.min(a, b), Math.max(a, b), isApart(a, b) ? null : idsOf(a, b)];
    const entries = [["apart", keyOf(a, b), ids], ["kept", node, ids ? true : null]];
    if (first !== node) change(found.root[node] === first ? entries : entries.slice(0, 1));
  };

  // Clusters at the radius, and what is kept of them.
  const findClusters = () => {
    const isWithin = (match) => match && (isVotes ? match.measure >= radius : match.measure <= radius);
    const skipped = Uint8Array.from(rows.reference ?? [], (match) => (isWithin(match) ? 1 : 0));
    const count = pure.countPairs(measures, radius, isVotes);
    found = { count, skipped, ...pure[`${about.linkage}Clusters`](n, pairA, pairB, count, skipped) };
    const farthest = (nodes) => measures[nodes.reduce((last, node) => Math.max(last, found.via[node]), -1)];
    clusters = pure.gatherClusters(found.root).map((nodes) => ({ nodes, farthest: farthest(nodes) }));
  };
  const isKeptByRule = (node, first) => node === first || rows.protected[node] === 1 || isApart(first, node)
    || (rows.group !== null && rows.group[node] === rows.group[first]);
  const tally = () => {
    kept.fill(1);
    for (const group of clusters) {
      const removed = group.nodes.filter((node) => !(choices.kept.get(node) ?? isKeptByRule(node, group.nodes[0])));
      group.isEmpty = removed.length === group.nodes.length;
      group.removed = group.isEmpty ? [] : removed;
      group.freed = sum(group.removed.map((node) => valueOf("size", node)));
      for (const node of group.removed) kept[node] = 0;
    }
    const [nClusters, nRemoved] = [clusters.length, sum(clusters.map(({ removed }) => removed.length))].map(decimal);
    fill(document, { "#n-clusters": nClusters, "#n-removed": nRemoved, "#radius-value": inUnits(radius),
      "#notice": "", "#bytes-freed": inBytes(sum(clusters.map(({ freed }) => freed))),
      "#status": `${inUnits(radius)}: ${nClusters} clusters, ${nRemoved} images would be removed` });
  };
  const stateOf = (node) => (kept[node] ? "✓ kept" : "✕ removed");
  const reasonOf = (node, { nodes: [first], isEmpty }) => {
    if (isEmpty) return "kept, because every image was removed";
    if (isApart(first, node)) return "no duplicate of the kept image";
    if (isChosen(node)) return `${kept[node] ? "kept" : "removed"} by you`;
    if (node === first || rows.protected[node]) return valueOf("reason_kept", node) ?? about.keep;
    return kept[node] ? "same group as the representative" : `copy of ${fileName(first)}`;
  };

  // Clusters as cards.
  const describe = (node) => {
    const [width, height, size, modified] = ["width", "height", "size", "modified"].map((name) => valueOf(name, node));
    const day = modified !== null && pure.timeText(modified).slice(0, 10);
    const texts = [width && `${width}×${height}`, size !== null && inBytes(size), day];
    return texts.filter(Boolean).map((text) => make("span", {}, text));
  };
  const pathOf = (node, other) => {
    const [before, differing, after] = pure.differingPart(nameOf(node), nameOf(other));
    const href = valueOf("link", node) ?? "";
    const link = /^(file|https?):/i.test(href) ? { href, target: "_blank", rel: "noreferrer" } : null;
    return make(link ? "a" : "span", link ?? {}, before, make("b", {}, differing), after);
  };
  const measureText = (node, first) => {
    const [measure, joined] = [measureOf(node, first), measures[found.via[node]]];
    const text = fileOf(node) === fileOf(first) ? "identical file" : measure === null ? "indirect" : inUnits(measure);
    return found.root[node] !== first || measure === joined ? text : `${text}, joined at ${joined}`;
  };
  const makeCard = (node, group) => {
    const [first, second] = group.nodes;
    return fill(clone("card-template", { node, group }), {
      ".thumb": imageOf(node), ".measure": node === first ? "" : measureText(node, first),
      ".path": pathOf(node, node === first ? second : first), ".facts": describe(node),
    });
  };
  const makeCluster = (group) => {
    const element = clone("cluster-template", { group, ariaLabel: `Cluster of ${fileName(group.nodes[0])}` });
    element.style.setProperty("--n", group.nodes.length);
    const texts = { h3: counted(group.nodes.length, "image"), ".note": `farthest ${inUnits(group.farthest)}` };
    return grow(fill(element, texts), PER_CLUSTER);
  };
  const grow = (element, count) => {
    const [{ group }, list] = [element, element.querySelector(".cards")];
    const end = list.childElementCount + count;
    list.append(...group.nodes.slice(list.childElementCount, end).map((node) => makeCard(node, group)));
    return fill(element, { ".more": end < group.nodes.length ? `Show ${decimal(group.nodes.length - end)} more` : "" });
  };
  const drawChoices = () => {
    for (const card of $("list").querySelectorAll(".card")) {
      card.classList.toggle("kept", kept[card.node] === 1);
      fill(card, { ".state": stateOf(card.node), ".reason": reasonOf(card.node, card.group) });
    }
    for (const element of $("list").children) {
      element.querySelector("input").checked = isReviewed(element.group);
      element.classList.toggle("is-empty", element.group.isEmpty);
    }
    $("undo").disabled = !changes.length;
    if ($("compare").open) drawCompare();
  };
  const differ = (nodes, value) => nodes.some((node) => value(node) !== value(nodes[0]));
  const filters = {
    text: ({ nodes }, part) => nodes.some((node) => nameOf(node).toLowerCase().includes(part)),
    folder: ({ nodes }, start) => nodes.some((node) => nameOf(node).toLowerCase().startsWith(start)),
    from: ({ farthest }, value) => farthest >= Number(value),
    to: ({ farthest }, value) => farthest <= Number(value),
    across: ({ nodes }) => differ(nodes, folderOf),
    mixed: ({ nodes }) => differ(nodes, (node) => `${valueOf("width", node)}×${valueOf("height", node)}`),
    undecided: (group) => !isReviewed(group) && !group.nodes.some(isChosen),
  };
  const orders = {
    copies: (a, b) => b.nodes.length - a.nodes.length,
    farthest: (a, b) => (isVotes ? a.farthest - b.farthest : b.farthest - a.farthest),
    bytes: (a, b) => b.freed - a.freed,
    path: (a, b) => (nameOf(a.nodes[0]) < nameOf(b.nodes[0]) ? -1 : 1),
  };
  const filterClusters = () => {
    const values = new FormData($("filters"));
    const given = Object.keys(filters).filter((name) => values.get(name));
    shown = clusters.filter((group) => given.every((name) => filters[name](group, values.get(name).toLowerCase())));
    const order = orders[values.get("sort")];
    shown.sort((a, b) => order(a, b) || a.nodes[0] - b.nodes[0]);
    drawList(0);
  };
  const drawList = (wanted) => {
    const nPages = Math.max(1, Math.ceil(shown.length / PER_PAGE));
    page = Math.max(0, Math.min(wanted, nPages - 1));
    $("list").replaceChildren(...shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(makeCluster));
    drawChoices();
    mark($("list").querySelector(".card"));
    fill(document, { "#found": `${decimal(shown.length)} of ${counted(clusters.length, "cluster")}`,
      "#page": `${decimal(page + 1)} of ${decimal(nPages)}` });
    [$("pages").hidden, $("previous").disabled, $("next").disabled] = [nPages < 2, page === 0, page === nPages - 1];
  };
  const mark = (card) => {
    for (const each of [current, card]) each?.classList.toggle("current", each === card);
    current = card;
  };
  const select = (card) => {
    if (card && $("compare").open) drawCompare(mark(card));
    else card?.querySelector(".thumb").focus({ preventScroll: true }); // marks it
    card?.scrollIntoView({ block: "nearest" });
  };

  // Decisions, out and in.
  const columnsOut = ["path", "id", "cluster_id", "representative_id", about.measure, "kept", "reason", "decided_by",
    "reviewed", "size", "modified"];
  const decisions = () => {
    const numbers = pure.numberClusters(found.root, found.skipped, byRow, rows.row);
    const wanted = clusters.filter((group) => !$("only-reviewed").checked || isReviewed(group));
    return wanted.flatMap((group) => group.nodes.map((node) => {
      const [[first], modified] = [group.nodes, valueOf("modified", node)];
      const values = [nameOf(node), rows.id[node], numbers.get(first), rows.id[first],
        node !== first ? measureOf(node, first) : isVotes ? null : 0, kept[node] === 1, reasonOf(node, group),
        isChosen(node) ? "person" : "rule", Boolean(choices.reviewed.get(node)), valueOf("size", node),
        modified === null ? null : pure.timeText(modified)];
      return Object.fromEntries(columnsOut.map((name, i) => [name, values[i]]));
    })).sort((a, b) => a.cluster_id - b.cluster_id);
  };
  const save = (download, text) => make("a", { href: URL.createObjectURL(new Blob([text])), download }).click();
  const apartPairs = () => [...choices.apart.values()].filter(Boolean);
  /** Take over what a person decided in a file of decisions; without `decided_by`, every row. */
  const importFile = async (file) => {
    const text = await file.text();
    const table = text.trimStart().startsWith("[") ? JSON.parse(text) : pure.parseCsv(text);
    const nodes = new Map(rows.id.map((id, node) => [id, node]));
    const known = table.map((row) => [nodes.get(row.id ?? row.path), row]).filter(([node]) => node !== undefined);
    const isTrue = (value) => String(value).toLowerCase() === "true";
    change(known.flatMap(([node, row]) => [["reviewed", node, isTrue(row.reviewed)],
      ...(row.decided_by === "rule" ? [] : [["kept", node, isTrue(row.kept)]])]));
    fill(document, { "#notice": `${file.name}: ${known.length} of ${counted(table.length, "row")} are in the report` });
  };

  // The radius: chart, table, and the pairs around it.
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
  const drawChart = () => {
    chart?.destroy();
    const names = ["removed", "clusters", "largest", "unrelated"];
    const { radius: radii, min_votes: votes, ...counts } = about.profile;
    const data = [radii ?? votes, ...names.map((name) => counts[`n_${name}`])];
    const line = (label, i) => ({ label, stroke: color(label), dash: i < 3 ? [] : [4, 4], points: { show: false } });
    const axis = { stroke: color("muted"), grid: { stroke: color("line"), width: 1 }, ticks: { show: false } };
    const draw = ({ ctx, bbox, valToPos }) => {
      ctx.fillStyle = color("accent");
      ctx.fillRect(valToPos(radius, "x", true) - 1, bbox.top, 2, bbox.height);
    };
    chart = new globalThis.uPlot({
      width: $("chart").clientWidth, height: 230, cursor: { y: false, drag: { x: false } }, hooks: { draw: [draw] },
      scales: { x: { time: false }, y: { range: [0, 1.05 * Math.max(1, ...data[1], ...data[2])] } },
      axes: [{ ...axis, size: 28 }, { ...axis, size: 56 }],
      series: [{ label: isVotes ? "votes" : "radius" }, ...names.map(line)],
    }, data, $("chart"));
    chart.over.addEventListener("click", ({ offsetX }) => setRadius(Math.round(chart.posToVal(offsetX, "x"))));
  };
  const makeLink = (measure, images, [first, second], nodes) => {
    const parts = { ".thumb": images, ".measure": inUnits(measure), ".path": first, ".path + .path": second };
    const element = fill(clone("link-template"), parts);
    if (nodes) element.querySelector(".thumb").addEventListener("click", () => compare(nodes));
    return element;
  };
  const drawLinks = () => {
    const inside = Array.from(found.links.filter((pair) => pair >= 0).sort().slice(-N_LINKS)).reverse();
    const isOutside = (a, b) => found.root[a] !== found.root[b] && !found.skipped[a] && !found.skipped[b];
    const outside = [...measures.keys()].filter((pair) => pair >= found.count && isOutside(pairA[pair], pairB[pair]));
    const link = ([a, b, measure]) => makeLink(measure, [imageOf(a), imageOf(b)], [pathOf(a, b), pathOf(b, a)], [a, b]);
    const links = (list) => list.slice(0, N_LINKS).map((pair) => link([pairA[pair], pairB[pair], measures[pair]]));
    const known = byRow.filter((node) => found.skipped[node]);
    [$("reference").hidden, $("n-reference").parentElement.hidden] = [!known.length, !rows.reference];
    fill(document, { "#inside": links(inside), "#outside": links(outside), "#n-reference": decimal(known.length),
      "#reference-list": Array.from(known.slice(0, N_REFERENCE), (node) => {
        const { id, measure, place } = rows.reference[node];
        return makeLink(measure, [imageOf(node), image(place, id)], [nameOf(node), `in the reference: ${id}`], null);
      }) });
  };
  const setRadius = (value) => {
    const start = performance.now();
    $("radius").value = value;
    radius = Number($("radius").value);
    for (const row of $("profile").rows) row.ariaCurrent = Number(row.dataset.radius) === radius ? "true" : null;
    for (const step of [findClusters, tally, filterClusters, drawLinks, store]) step();
    Object.assign(document.body.dataset, { ready: "true", milliseconds: performance.now() - start });
    requestAnimationFrame(() => chart?.redraw(false, false)); // before its first frame, redraw() loses the scale of x
  };

  // Two images side by side.
  const compare = (nodes) => {
    compared = nodes ?? null;
    if (!nodes && current.node === current.group.nodes[0]) mark(current.nextElementSibling);
    drawCompare();
    $("compare").showModal();
    $("compare-title").focus();
  };
  const comparedNodes = () => compared ?? [current.group.nodes[0], current.node];
  const drawCompare = () => {
    const nodes = comparedNodes();
    const [[left, right], pair] = [nodes, findPair(...nodes)];
    nodes.forEach((node, i) => {
      const box = isVotes && pairB[pair] === node ? placement(pair) : "";
      const parts = { ".frame": [imageOf(node), box], ".path": pathOf(node, nodes[1 - i]), ".facts": describe(node) };
      const ratio = valueOf("width", node) / valueOf("height", node) || 4 / 3;
      fill($("stage").children[i], parts).style.setProperty("--ratio", ratio);
    });
    if (hashes.length) drawBits(left, right);
    fill(document, { "#compare-note": measureText(right, left), "#compare-toggle": stateOf(right) });
    $("compare-toggle").hidden = compared !== null;
    $("compare-apart").ariaPressed = isApart(left, right);
  };
  /** Return a frame where the left image of a pair, turned, lies in the right one. */
  const placement = (pair) => {
    const [[width, height], sides] = [pairB, pairA].map((of) => [rows.width[of[pair]], rows.height[of[pair]]]);
    const element = make("div", { className: "placement", title: pairs.turn[pair] });
    if (["rotated_90", "rotated_270", "transposed", "transversed"].includes(pairs.turn[pair])) sides.reverse();
    const unit = (pairs.scale[pair] * Math.max(width, height)) / Math.max(...sides);
    const shares = [pairs.shift_x[pair], pairs.shift_y[pair], (unit * sides[0]) / width, (unit * sides[1]) / height];
    ["left", "top", "width", "height"].forEach((name, i) => { element.style[name] = `${100 * shares[i]}%`; });
    return element;
  };
  const drawBits = (left, right) => {
    const width = Math.ceil(Math.sqrt(about.hash_bits));
    const first = about.hash_type.startsWith("imagehash") ? 7 : 0; // which bit of a byte is the first
    const [a, b] = [left, right].map(hashOf).map((hash) => (i) => (hash[i >> 3] >> ((i & 7) ^ first)) & 1);
    const colors = ["bit-0", "bit-1", "accent"].map(color);
    const context = Object.assign($("bits"), { width, height: width }).getContext("2d");
    for (let i = 0; i < about.hash_bits; i++) {
      context.fillStyle = colors[a(i) === b(i) ? a(i) : 2];
      context.fillRect(i % width, Math.floor(i / width), 1, 1);
    }
    fill(document, { "#bits-text": `${bitsBetween(left, right)} of ${about.hash_bits} bits differ` });
  };

  // Keys and buttons: a button with `data-key` does what its key does.
  const onCard = (action) => () => current && !compared && action(current);
  const turnPage = (step) => () => { drawList(page + step); select(current); };
  const keys = {
    j: onCard((card) => select(card.closest(".cluster").nextElementSibling?.querySelector(".card"))),
    k: onCard((card) => select(card.closest(".cluster").previousElementSibling?.querySelector(".card"))),
    ArrowRight: onCard((card) => select(card.nextElementSibling)),
    ArrowLeft: onCard((card) => select(card.previousElementSibling)),
    " ": onCard(toggle), r: onCard(review), u: () => changes.length && choose(changes.pop()),
    K: onCard(({ node, group }) => changeAll("kept", group, (other) => other === node)),
    A: onCard(({ group }) => changeAll("kept", group, () => true)),
    d: () => (compared ?? current) && setApart(...comparedNodes()), Enter: onCard(() => $("compare").open || compare()),
    b: () => { $("blink").ariaPressed = $("stage").classList.toggle("blink"); },
    n: turnPage(1), p: turnPage(-1), "/": () => $("text").focus(), "?": () => $("help").showModal(),
    "decisions.csv": () => save("decisions.csv", pure.toCsv(columnsOut, decisions())),
    "decisions.json": () => save("decisions.json", `${JSON.stringify(decisions(), null, 1)}\n`),
    "not_duplicates.csv": () => save("not_duplicates.csv", pure.toCsv(["left_id", "right_id"], apartPairs())),
  };
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    const isPress = [" ", "Enter"].includes(key) && !target.closest("#list .thumb");
    const others = isPress ? ", button, a, input, summary" : key.startsWith("Arrow") ? ", #radius" : "";
    const native = `input:not(#radius, [type=checkbox]), select${others}`;
    const isTaken = event.ctrlKey || event.metaKey || event.altKey || $("help").open || target.closest(native);
    if (isTaken || !keys[key]) return;
    event.preventDefault();
    keys[key]();
  });
  document.addEventListener("click", ({ target }) => {
    const { key, save: name } = target.closest("[data-key], [data-save]")?.dataset ?? {};
    keys[key ?? name]?.();
  });
  on("profile", "click", ({ target }) => setRadius(target.closest("tr").dataset.radius));
  on("list", "click", ({ target }) => {
    mark(target.closest(".card") ?? current);
    if (target.closest(".thumb")) compare();
    if (target.closest(".state")) toggle(current);
    if (target.closest(".more")) drawChoices(grow(target.closest(".cluster"), 1000));
  });
  on("list", "change", ({ target }) => review(target.closest(".cluster")));
  on("list", "focusin", ({ target }) => mark(target.closest(".card") ?? current));
  on("radius", "input", ({ target }) => setRadius(target.value));
  on("filters", "input", filterClusters);
  on("import", "change", ({ target }) => importFile(target.files[0]));
  on("compare", "close", () => { compared = null; select(current); });
  const stored = JSON.parse(storage?.getItem(about.digest) ?? "{}");
  choose(stored.entries ?? []);
  setRadius(stored.radius ?? radius);
  drawChart();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawChart);
  addEventListener("resize", () => chart.setSize({ width: $("chart").clientWidth, height: 230 }));
})();
