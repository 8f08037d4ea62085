// The client stands once in the repository, where the server's page has it; here it is only while a package is made.
import {copyFileSync, rmSync} from "node:fs";

const root = new URL("../", import.meta.url);
const sources = {
  "qiyu-client.js": "../../src/qiyu/web/pages/qiyu-client.js",
  "LICENSE": "../../LICENSE",
};

for (const [name, from] of Object.entries(sources)) {
  if (process.argv[2] === "copy") copyFileSync(new URL(from, root), new URL(name, root));
  else rmSync(new URL(name, root), {force: true});
}
