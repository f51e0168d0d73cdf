/* The report page: clusters at every radius, a person's choices, and files of decisions. It requests nothing.
 *
 * Nodes are rows that have a partner, numbered by rank: node 0 is kept before all others, and the representative of a
 * cluster is its smallest node. Pairs are sorted, nearest first, so that those within a radius are the first ones.
 */
/* global uPlot */
"use strict";

// Functions without state, which tests call.
globalThis.imgmatchReport = Object.freeze({
  /** Return how many of the sorted pairs hold: within a distance, or with at least so many votes. */
  countPairs(measures, value, isVotes) {
    const end = measures.findIndex((measure) => (isVotes ? measure < value : measure > value));
    return end < 0 ? measures.length : end;
  },

  /** Join nodes by the first `count` pairs. Returns the representative of each node, the pair by which the node joined
   * it (`via`), and the pairs that joined clusters (`links`). Skipped nodes join nothing. */
  connectedClusters(n, a, b, count, skipped) {
    const root = new Int32Array(n).map((_, node) => node);
    const [above, links, via] = [0, 1, 2].map(() => new Int32Array(n).fill(-1));
    const find = (node) => {
      for (; root[node] !== node; node = root[node]) root[node] = root[root[node]];
      return node;
    };
    for (let pair = 0; pair < count; pair++) {
      if (skipped[a[pair]] || skipped[b[pair]]) continue;
      const [left, right] = [find(a[pair]), find(b[pair])];
      if (left === right) continue;
      const high = Math.max(left, right);
      root[high] = above[high] = Math.min(left, right);
      links[high] = pair;
    }
    for (let node = 0; node < n; node++) {
      if (above[node] < 0) continue;
      root[node] = root[above[node]];
      via[node] = above[above[node]] < 0 ? links[node] : via[above[node]];
    }
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
      for (const pair of pairsOf[node]) {
        const other = a[pair] + b[pair] - node;
        if (root[other] < 0 && !skipped[node] && !skipped[other]) [root[other], via[other]] = [node, pair];
      }
    }
    return { root, via, links: via };
  },

  /** Return the clusters of at least two nodes, each as its nodes in order. */
  gatherClusters(root) {
    return [...Map.groupBy(root.keys(), (node) => root[node]).values()].filter((nodes) => nodes.length > 1);
  },

  /** Return the numbers of clusters by representative: they count the first rows of clusters before, in the order of
   * the frame. Rows without a partner are clusters too, skipped nodes are not. `byRow` has the nodes in that order. */
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
    const lines = [names, ...rows.map((row) => names.map((name) => String(row[name] ?? "")))];
    return lines.map((fields) => `${fields.map(field).join(",")}\n`).join("");
  },

  /** Return the rows of a CSV text (RFC 4180) as objects of texts. */
  parseCsv(text) {
    const lines = [[]];
    const pattern = /("(?:[^"]|"")*"|(?!")[^,\r\n]*)(,|\r\n|\n|\r|$)/gy;
    pattern.lastIndex = text.startsWith("\ufeff") ? 1 : 0;
    for (let end = ","; end;) {
      const found = pattern.exec(text);
      if (!found) throw new Error(`a quote of row ${lines.length} is not in pairs`);
      lines.at(-1).push(found[1].startsWith('"') ? found[1].slice(1, -1).replaceAll('""', '"') : found[1]);
      end = found[2];
      if (end && end !== ",") lines.push([]);
    }
    const [names, ...rows] = lines.filter((fields) => fields.length > 1 || fields[0]);
    return rows.map((row) => Object.fromEntries(names.map((name, i) => [name, row[i] ?? ""])));
  },

  /** Return seconds since 1970 as UTC with microseconds. */
  timeText(seconds) {
    const microseconds = Math.round(seconds * 1e6);
    const fraction = ((microseconds % 1e6) + 1e6) % 1e6;
    const time = new Date((microseconds - fraction) / 1000).toISOString();
    return `${time.slice(0, 19)}.${String(fraction).padStart(6, "0")}+0000`;
  },
});

(async () => {
  const { countPairs, connectedClusters, starClusters, gatherClusters, numberClusters, differingPart, toCsv, parseCsv,
    timeText } = globalThis.imgmatchReport;
  const [PER_PAGE, PER_CLUSTER, N_LINKS, N_REFERENCE] = [20, 30, 20, 200];

  const $ = (id) => document.getElementById(id);
  const on = (id, event, action) => $(id).addEventListener(event, action);
  const write = (texts) => Object.entries(texts).forEach(([id, text]) => { $(id).textContent = text; });
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const clone = (id, ...selectors) => {
    const element = $(id).content.firstElementChild.cloneNode(true);
    return [element, ...selectors.map((selector) => element.querySelector(selector))];
  };
  if (!globalThis.DecompressionStream || !Map.groupBy) {
    write({ notice: "This browser is too old to unpack the report (no DecompressionStream). Use one of 2024 or later." });
    return;
  }
  const about = JSON.parse($("about").textContent);
  const isVotes = about.measure === "votes";
  const decimal = (value) => value.toLocaleString("en");
  const counted = (value, noun) => `${decimal(value)} ${noun}${value === 1 ? "" : "s"}`;
  const inUnits = (value) => counted(value, isVotes ? "vote" : "bit");
  const inBytes = (value) => {
    const power = Math.min(4, Math.floor(Math.log10(Math.max(1, value)) / 3));
    return `${(value / 1000 ** power).toFixed(power > 1 ? 1 : 0)} ${["bytes", "kB", "MB", "GB", "TB"][power]}`;
  };

  // The data, with nodes in the order of their rank.
  const fromBase64 = (text) => Uint8Array.fromBase64?.(text)
    ?? Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const unpack = (id) => {
    const stream = new Blob([fromBase64($(id).textContent)]).stream();
    return new Response(stream.pipeThrough(new DecompressionStream("gzip"))).json();
  };
  const [{ rank, identical_files: identical, ...columns }, pairs] = await Promise.all(["rows", "pairs"].map(unpack));
  const n = rank.length;
  const byRow = Int32Array.from(rank);
  const given = new Int32Array(n); // the number of each node in the file
  byRow.forEach((node, i) => { given[node] = i; });
  const inOrder = ([name, values]) => [name, values && Array.from(given, (i) => values[i])];
  const rows = Object.fromEntries(Object.entries(columns).map(inOrder));
  const [pairA, pairB] = [pairs.a, pairs.b].map((nodes) => Int32Array.from(nodes, (i) => rank[i]));
  const [sameA, sameB] = [0, 1].map((side) => (identical ?? []).map((pair) => rank[pair[side]]));
  const files = connectedClusters(n, sameA, sameB, sameA.length, []).root; // equal for identical files
  const measures = pairs.measure;
  const valueOf = (name, node) => rows[name]?.[node] ?? null;
  const nameOf = (node) => valueOf("path", node) ?? rows.id[node];
  const fileName = (node) => nameOf(node).split(/[\\/]/).at(-1);
  const folderOf = (node) => nameOf(node).split(/[\\/]/).slice(0, -1).join("/");

  const thumbnails = new Map(); // lists of base64, read from the page when they are needed
  const image = (place, name) => {
    const number = Math.floor(place / about.thumbnails.page_size);
    if (place >= 0 && !thumbnails.has(number)) thumbnails.set(number, JSON.parse($(`thumbnails-${number}`).textContent));
    const data = thumbnails.get(number)?.[place % about.thumbnails.page_size];
    return data ? make("img", { src: `data:image/webp;base64,${data}`, alt: name, decoding: "async" })
      : make("span", { className: "missing", role: "img", ariaLabel: name }, "no thumbnail");
  };
  const imageOf = (node) => image(rows.place[node], fileName(node));

  let hashes = null;
  const hashOf = (node) => {
    hashes ??= fromBase64($("hashes").textContent);
    return hashes.subarray((given[node] * hashes.length) / n, ((given[node] + 1) * hashes.length) / n);
  };
  const bitsBetween = (left, right) => {
    const [a, b] = [hashOf(left), hashOf(right)];
    let sum = 0;
    for (let i = 0; i < a.length; i++) for (let bits = a[i] ^ b[i]; bits; bits &= bits - 1) sum++;
    return sum;
  };
  const findPair = (x, y) => pairA.findIndex((a, i) => (a === x && pairB[i] === y) || (a === y && pairB[i] === x));
  /** Return the distance or votes of two nodes, null where the page does not have the votes. */
  const measureOf = (left, right) => (isVotes ? (measures[findPair(left, right)] ?? null) : bitsBetween(left, right));

  // What a person chose: "kept 5" is true or false, "reviewed 5" and "apart 3 5" (no duplicates) are true.
  const choices = new Map();
  const changes = [];
  const kept = new Uint8Array(n);
  let [radius, found, clusters, shown, page, current, compared, timer] = [about.chosen, null, [], [], 0, null, null, 0];
  let storage = null; // a sandboxed frame has none
  try { storage = localStorage; } catch { /* so choices last as long as the page */ }
  const storageKey = `imgmatch-report:${about.digest}`;
  const store = () => storage?.setItem(storageKey, JSON.stringify({ radius, choices: [...choices] }));
  const choose = (entries) => {
    for (const [key, value] of entries) if (value === undefined) choices.delete(key); else choices.set(key, value);
    tally();
    drawChoices();
    store();
  };
  const change = (entries) => {
    changes.push(entries.map(([key]) => [key, choices.get(key)]));
    choose(entries);
  };
  const undo = () => changes.length && choose(changes.pop());
  const isChosen = (node) => choices.has(`kept ${node}`);
  const isReviewed = ({ nodes }) => nodes.every((node) => choices.has(`reviewed ${node}`));
  const setAll = (what, group, value) => change(group.nodes.map((node) => [`${what} ${node}`, value(node)]));
  const toggle = ({ node, group }) => change([[`kept ${node}`, group.isEmpty || !kept[node]]]);
  const keepOnly = ({ node, group }) => setAll("kept", group, (other) => other === node);
  const keepAll = ({ group }) => setAll("kept", group, () => true);
  const review = ({ group }, value = isReviewed(group) ? undefined : true) => setAll("reviewed", group, () => value);
  const setApart = (first, node) => {
    const value = choices.has(`apart ${first} ${node}`) ? undefined : true;
    const isCopy = found.root[node] === first && node !== first;
    if (first !== node) change([[`apart ${first} ${node}`, value], ...(isCopy ? [[`kept ${node}`, value]] : [])]);
  };

  // Clusters at the radius, and what is kept of them.
  const findClusters = () => {
    const isSkipped = (match) => match && (isVotes ? match.measure >= radius : match.measure <= radius);
    const skipped = Array.from({ length: n }, (_, node) => isSkipped(valueOf("reference", node)));
    const count = countPairs(measures, radius, isVotes);
    const join = about.linkage === "star" ? starClusters : connectedClusters;
    found = { count, skipped, ...join(n, pairA, pairB, count, skipped) };
    const last = (nodes) => nodes.reduce((latest, node) => Math.max(latest, found.via[node]), -1);
    clusters = gatherClusters(found.root).map((nodes) => ({ nodes, farthest: measures[last(nodes)] }));
  };
  const isKeptByRule = (node, first) => node === first || Boolean(rows.protected[node])
    || (rows.group !== null && rows.group[node] === rows.group[first]);
  const tally = () => {
    let [nRemoved, freed] = [0, 0];
    kept.fill(1);
    for (const group of clusters) {
      const removed = group.nodes.filter((node) => !(choices.get(`kept ${node}`) ?? isKeptByRule(node, group.nodes[0])));
      group.isEmpty = removed.length === group.nodes.length; // then nothing is removed
      group.removed = group.isEmpty ? [] : removed;
      group.freed = group.removed.reduce((sum, node) => sum + valueOf("size", node), 0);
      for (const node of group.removed) kept[node] = 0;
      nRemoved += group.removed.length;
      freed += group.freed;
    }
    write({ "n-clusters": decimal(clusters.length), "n-removed": decimal(nRemoved), "bytes-freed": inBytes(freed),
      status: `${inUnits(radius)}: ${counted(clusters.length, "cluster")}, ${decimal(nRemoved)} would be removed` });
  };
  const reasonOf = (node, { nodes: [first], isEmpty }) => {
    if (isEmpty) return "kept, because every image was removed";
    if (choices.has(`apart ${first} ${node}`)) return "no duplicate of the kept image";
    if (isChosen(node)) return `${kept[node] ? "kept" : "removed"} by you`;
    if (node === first || rows.protected[node]) return valueOf("reason_kept", node) ?? about.keep;
    return kept[node] ? "same group as the representative" : `copy of ${fileName(first)}`;
  };

  // Clusters as cards.
  const describe = (node) => {
    const [width, height, size, modified] = ["width", "height", "size", "modified"].map((name) => valueOf(name, node));
    const parts = [width && `${width}×${height}`, size !== null && inBytes(size),
      modified !== null && timeText(modified).slice(0, 10)];
    return parts.filter(Boolean).map((part) => make("span", {}, part));
  };
  const pathOf = (node, other) => {
    const [before, differing, after] = differingPart(nameOf(node), nameOf(other));
    const href = valueOf("link", node) ?? "";
    const link = /^(file|https?):/i.test(href) ? { href, target: "_blank", rel: "noreferrer" } : null;
    return make(link ? "a" : "span", link ?? {}, before, make("b", {}, differing), after);
  };
  const measureText = (node, first) => {
    const [measure, joined] = [measureOf(node, first), measures[found.via[node]]];
    const text = files[node] === files[first] ? "identical file" : measure === null ? "through others" : inUnits(measure);
    return found.root[node] !== first || measure === joined ? text : `${text}, joined at ${joined}`;
  };
  const makeCard = (group) => (node) => {
    const parts = [".thumb", ".state", ".measure", ".reason", ".path", ".facts"];
    const [card, thumb, state, measure, reason, path, facts] = clone("card-template", ...parts);
    const [first, second] = group.nodes;
    thumb.append(imageOf(node));
    measure.append(node === first ? "" : measureText(node, first));
    path.append(pathOf(node, node === first ? second : first));
    facts.append(...describe(node));
    const update = () => {
      card.classList.toggle("kept", kept[node] === 1);
      state.textContent = kept[node] ? "✓ kept" : "✕ removed";
      state.ariaLabel = `${kept[node] ? "kept" : "removed"}: ${fileName(node)}`;
      reason.textContent = reasonOf(node, group);
    };
    update();
    return Object.assign(card, { node, group, update });
  };
  const makeCluster = (group) => {
    const [element, title, note, box, list, more] = clone("cluster-template", "h3", ".note", "input", ".cards", ".more");
    element.style.setProperty("--n", group.nodes.length);
    title.textContent = counted(group.nodes.length, "image");
    note.textContent = `farthest ${inUnits(group.farthest)}`;
    const grow = (count) => {
      const start = list.childElementCount;
      list.append(...group.nodes.slice(start, start + count).map(makeCard(group)));
      const nMore = group.nodes.length - list.childElementCount;
      more.textContent = nMore ? `Show the other ${decimal(nMore)}` : "";
    };
    const update = () => {
      box.checked = isReviewed(group);
      element.classList.toggle("is-empty", group.isEmpty);
    };
    grow(PER_CLUSTER);
    update();
    return Object.assign(element, { group, grow, update, ariaLabel: `Cluster of ${fileName(group.nodes[0])}` });
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
    shown.sort((a, b) => orders[values.get("sort")](a, b) || a.nodes[0] - b.nodes[0]);
    turnPage(-page);
  };
  const drawList = () => {
    const nPages = Math.max(1, Math.ceil(shown.length / PER_PAGE));
    page = Math.max(0, Math.min(page, nPages - 1));
    $("list").replaceChildren(...shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(makeCluster));
    mark($("list").querySelector(".card"));
    write({ found: `${decimal(shown.length)} of ${counted(clusters.length, "cluster")}`,
      page: `${decimal(page + 1)} of ${decimal(nPages)}` });
    [$("pages").hidden, $("previous").disabled, $("next").disabled] = [nPages < 2, page === 0, page === nPages - 1];
  };
  const drawChoices = () => {
    for (const element of $("list").querySelectorAll(".card, .cluster")) element.update();
    $("undo").disabled = !changes.length;
    if ($("compare").open) drawCompare();
  };
  const turnPage = (step) => {
    page += step;
    drawList();
  };
  const mark = (card) => {
    current?.classList.remove("current");
    current = card;
    current?.classList.add("current");
  };
  const select = (card) => {
    if (!card) return;
    mark(card);
    if (!$("compare").open) card.querySelector(".thumb").focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
  };

  // Decisions, out and in.
  const decisions = () => {
    const numbers = numberClusters(found.root, found.skipped, byRow, rows.row);
    const groups = new Map(clusters.flatMap((group) => group.nodes.map((node) => [node, group])));
    const isWanted = (node) => groups.has(node) && (!$("only-reviewed").checked || isReviewed(groups.get(node)));
    return [...byRow].filter(isWanted).map((node) => {
      const [[first], modified] = [groups.get(node).nodes, valueOf("modified", node)];
      return {
        path: nameOf(node), id: rows.id[node], cluster_id: numbers.get(first), representative_id: rows.id[first],
        [about.measure]: node !== first ? measureOf(node, first) : isVotes ? null : 0, kept: kept[node] === 1,
        reason: reasonOf(node, groups.get(node)), decided_by: isChosen(node) ? "person" : "rule",
        reviewed: choices.has(`reviewed ${node}`), size: valueOf("size", node),
        modified: modified === null ? null : timeText(modified),
      };
    });
  };
  const apart = () => [...choices.keys()].filter((key) => key.startsWith("apart ")).map((key) => {
    const [, left, right] = key.split(" ");
    return { left_id: rows.id[left], right_id: rows.id[right] };
  });
  const decisionColumns = ["path", "id", "cluster_id", "representative_id", about.measure, "kept", "reason", "decided_by",
    "reviewed", "size", "modified"];
  const texts = {
    "decisions.csv": () => toCsv(decisionColumns, decisions()),
    "decisions.json": () => `${JSON.stringify(decisions(), null, 1)}\n`,
    "not_duplicates.csv": () => toCsv(["left_id", "right_id"], apart()),
  };
  const save = (download) => {
    const href = URL.createObjectURL(new Blob([texts[download]()]));
    make("a", { href, download }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
  };
  /** Take over what a person decided in a file of decisions; without `decided_by`, every row. */
  const importFile = async ([file]) => {
    const nodes = new Map(rows.id.map((id, node) => [id, node]));
    const isTrue = (value) => String(value).toLowerCase() === "true";
    try {
      const text = await file.text();
      const table = text.trimStart().startsWith("[") ? JSON.parse(text) : parseCsv(text);
      const known = table.map((row) => [nodes.get(row.id ?? row.path), row]).filter(([node]) => node !== undefined);
      const kept = known.filter(([, row]) => row.decided_by !== "rule").map(([node, row]) => [`kept ${node}`, isTrue(row.kept)]);
      change([...kept, ...known.filter(([, row]) => isTrue(row.reviewed)).map(([node]) => [`reviewed ${node}`, true])]);
      write({ notice: `${file.name}: ${counted(known.length, "row")} of ${decimal(table.length)} are in this report` });
    } catch (error) {
      write({ notice: `${file.name} cannot be read: ${error.message}` });
    }
  };

  // The radius: chart, table, and the pairs around it.
  const { profile } = about;
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
  let chart = null;
  const drawChart = () => {
    chart?.destroy();
    const names = ["removed", "clusters", "largest", "unrelated"];
    const data = [profile.radius ?? profile.min_votes, ...names.map((name) => profile[`n_${name}`])];
    const places = [...data[0].keys()].sort((a, b) => data[0][a] - data[0][b]);
    const line = (label) => ({ label, stroke: color(label), points: { show: false }, dash: label === "unrelated" ? [4, 4] : [] });
    const axis = { stroke: color("muted"), grid: { stroke: color("line"), width: 1 }, ticks: { show: false }, size: 56 };
    const draw = ({ ctx, bbox, valToPos }) => {
      ctx.fillStyle = color("accent");
      ctx.fillRect(valToPos(radius, "x", true) - 1, bbox.top, 2, bbox.height);
    };
    chart = new uPlot({
      width: $("chart").clientWidth, height: 230, cursor: { y: false, drag: { x: false } }, hooks: { draw: [draw] },
      scales: { x: { time: false }, y: { range: [0, 1.05 * Math.max(1, ...data[1], ...data[2])] } },
      axes: [{ ...axis, size: 28 }, axis], series: [{ label: isVotes ? "votes" : "radius" }, ...names.map(line)],
    }, data.map((values) => places.map((i) => values[i])), $("chart"));
    chart.over.addEventListener("click", ({ offsetX }) => setRadius(Math.round(chart.posToVal(offsetX, "x"))));
  };
  const makeLink = (measure, images, paths, onclick) => {
    const [element, thumb, value, first, second] = clone("link-template", ".thumb", ".measure", ".path", ".path + .path");
    [[thumb, images], [value, [inUnits(measure)]], [first, [paths[0]]], [second, [paths[1]]]].forEach(([of, texts]) => of.append(...texts));
    thumb.onclick = onclick;
    return element;
  };
  const linkOf = (pair) => {
    const [left, right] = [pairA[pair], pairB[pair]];
    return makeLink(measures[pair], [imageOf(left), imageOf(right)], [pathOf(left, right), pathOf(right, left)],
      () => compare([left, right]));
  };
  const drawLinks = () => {
    const inside = Array.from(found.links).filter((pair) => pair >= 0).sort((x, y) => y - x).slice(0, N_LINKS);
    const outside = [];
    for (let pair = found.count; pair < measures.length && outside.length < N_LINKS; pair++) {
      const [left, right] = [pairA[pair], pairB[pair]];
      if (found.root[left] !== found.root[right] && !found.skipped[left] && !found.skipped[right]) outside.push(pair);
    }
    $("inside").replaceChildren(...inside.map(linkOf));
    $("outside").replaceChildren(...outside.map(linkOf));
    const known = [...byRow].filter((node) => found.skipped[node]);
    write({ "n-reference": decimal(known.length), "reference-note": `The first ${N_REFERENCE} of ${decimal(known.length)}` });
    $("reference").hidden = !known.length;
    $("reference-list").replaceChildren(...known.slice(0, N_REFERENCE).map((node) => {
      const { id, measure, place } = rows.reference[node];
      return makeLink(measure, [imageOf(node), image(place, id)], [nameOf(node), `in the reference: ${id}`], null);
    }));
  };
  const drawRadius = () => {
    write({ "radius-value": inUnits(radius) });
    for (const row of $("profile").rows) {
      row.ariaCurrent = Number(row.dataset.radius) === radius ? "true" : null;
      row.hidden = !row.ariaCurrent && row.dataset.shown === undefined;
    }
  };
  const setRadius = (value) => {
    const start = performance.now();
    $("radius").value = value;
    radius = Number($("radius").value);
    for (const step of [findClusters, tally, drawRadius, filterClusters, drawLinks, store]) step();
    document.body.dataset.milliseconds = Math.round(performance.now() - start);
    requestAnimationFrame(() => chart?.redraw(false, false)); // before its first frame, redraw() loses the scale of x
  };

  // Two images side by side.
  const compare = (nodes) => {
    if (!nodes && !current) return;
    compared = nodes ?? null;
    if (!nodes && current.node === current.group.nodes[0]) mark(current.nextElementSibling);
    drawCompare();
    $("compare").showModal();
  };
  const comparedNodes = () => compared ?? [current.group.nodes[0], current.node];
  const drawCompare = () => {
    const nodes = comparedNodes();
    const [left, right] = nodes;
    nodes.forEach((node, i) => {
      const [frame, path, facts] = [".frame", ".path", ".facts"].map((part) => $("stage").children[i].querySelector(part));
      frame.style.setProperty("--ratio", (valueOf("width", node) ?? 4) / (valueOf("height", node) ?? 3));
      frame.replaceChildren(imageOf(node));
      path.replaceChildren(pathOf(node, nodes[1 - i]));
      facts.replaceChildren(...describe(node));
      const pair = findPair(left, right);
      if (pairs.scale && pair >= 0 && pairB[pair] === node) frame.append(placement(pair));
    });
    if (about.hash_bits) drawBits(left, right);
    write({ "compare-note": measureText(right, left), "compare-toggle": kept[right] ? "✓ kept" : "✕ removed" });
    $("compare-toggle").hidden = compared !== null;
    $("compare-apart").ariaPressed = choices.has(`apart ${left} ${right}`);
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
    const [bits, others] = [left, right].map(hashOf).map((hash) => (i) => (hash[i >> 3] >> ((i & 7) ^ first)) & 1);
    Object.assign($("bits"), { width: 8 * width, height: 8 * width });
    const context = $("bits").getContext("2d");
    const fill = (name, ...box) => { context.fillStyle = color(name); context.fillRect(...box); };
    for (let i = 0; i < about.hash_bits; i++) {
      const [x, y] = [8 * (i % width), 8 * Math.floor(i / width)];
      fill(`bit-${bits(i)}`, x, y, 8, 8);
      if (bits(i) !== others(i)) fill("accent", x + 1, y + 1, 6, 6);
    }
    write({ "bits-text": `${bitsBetween(left, right)} of ${about.hash_bits} bits differ` });
  };
  const blink = () => {
    const isOn = $("stage").classList.toggle("blink");
    clearInterval(timer);
    if (isOn) timer = setInterval(() => $("stage").classList.toggle("swapped"), 600);
    $("blink").ariaPressed = isOn;
  };

  // Keys and buttons. A button with `data-key` does what its key does.
  const clusterOf = (card) => card.closest(".cluster");
  const onCard = (action) => () => current && !compared && action(current);
  const keys = {
    j: onCard((card) => select(clusterOf(card).nextElementSibling?.querySelector(".card"))),
    k: onCard((card) => select(clusterOf(card).previousElementSibling?.querySelector(".card"))),
    ArrowRight: onCard((card) => select(card.nextElementSibling)),
    ArrowLeft: onCard((card) => select(card.previousElementSibling)),
    " ": onCard(toggle), K: onCard(keepOnly), A: onCard(keepAll), r: onCard(review), u: undo,
    d: () => (compared ?? current) && setApart(...comparedNodes()),
    Enter: () => $("compare").open || compare(), b: () => $("compare").open && blink(),
    n: () => turnPage(1) ?? select(current), p: () => turnPage(-1) ?? select(current), "/": () => $("text").focus(), "?": () => $("help").showModal(),
  };
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    const isNative = target.closest("input:not([type=checkbox]), select") || ([" ", "Enter"].includes(key)
      && !target.closest(".thumb") && target.closest("button, a, input, summary, label"));
    if (event.ctrlKey || event.metaKey || event.altKey || isNative || $("help").open || !Object.hasOwn(keys, key)) return;
    event.preventDefault();
    keys[key]();
    if ($("compare").open) drawCompare();
  });
  document.addEventListener("click", ({ target }) => {
    const { key, save: name, radius: value } = target.closest("button, tr")?.dataset ?? {};
    if (key) keys[key]();
    if (name) save(name);
    if (value) setRadius(value);
  });
  on("list", "click", ({ target }) => {
    if (target.closest(".card")) mark(target.closest(".card"));
    if (target.closest(".thumb")) compare();
    if (target.closest(".state")) toggle(current);
    if (target.closest(".more")) clusterOf(target).grow(1000);
  });
  on("list", "change", ({ target }) => review(clusterOf(target)));
  on("list", "focusin", ({ target }) => target.closest(".card") && mark(target.closest(".card")));
  let frame = 0;
  on("radius", "input", () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => setRadius($("radius").value));
  });
  on("filters", "input", filterClusters);
  on("filters", "submit", (event) => event.preventDefault());
  on("import", "change", ({ target }) => importFile(target.files));
  on("compare", "close", () => {
    if ($("stage").classList.contains("blink")) blink();
    compared = null;
    select(current);
  });
  $("folders").append(...[...new Set(rows.id.map((_, node) => folderOf(node)))].slice(0, 500).map((value) => make("option", { value })));

  const stored = JSON.parse(storage?.getItem(storageKey) ?? "{}");
  for (const [key, value] of stored.choices ?? []) choices.set(key, value);
  setRadius(stored.radius ?? radius);
  drawChart();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawChart);
  addEventListener("resize", () => chart.setSize({ width: $("chart").clientWidth, height: 230 }));
  document.body.dataset.ready = "true";
})();
