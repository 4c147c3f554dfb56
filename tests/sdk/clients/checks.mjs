// As checks.py, for Node.
export const { URL: url, KEY: key, BROKE_KEY: brokeKey, LIMITED_KEY: limitedKey } = process.env;
export const weather = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

export async function run(checks) {
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
      console.log(`ok ${name}`);
    } catch (error) {
      console.log(`failed ${name}: ${JSON.stringify(String(error.stack ?? error))}`);
    }
  }
}

export async function raised(kind, call) {
  try {
    await call();
  } catch (error) {
    if (error instanceof kind) return error;
    throw error;
  }
  throw new Error(`${kind.name} was not raised`);
}
