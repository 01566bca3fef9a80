// The official SDK of Anthropic, unchanged but for its base URL, and what its users do with it.
// test_javascript.py has set up the models: each is a fake node that behaves in one way.
import assert from "node:assert/strict";
import test from "node:test";

import Anthropic from "@anthropic-ai/sdk";

const options = { baseURL: process.env.GATEWAY_URL, apiKey: process.env.GATEWAY_KEY, maxRetries: 0 };
const client = new Anthropic(options);
const TEXT = "fake-0 fake-1 fake-2 fake-3 fake-4 ";
const messages = [{ role: "user", content: "What is the weather?" }];
const tools = [{ name: "weather", input_schema: { type: "object", properties: { city: { type: "string" } } } }];
const INPUTS = [{ city: "Tokyo" }, { city: "東京" }];

const asked = (values = {}) => ({ model: "talker", max_tokens: 64, messages, ...values });
const ask = (values) => client.messages.create(asked(values));
const uses = (message) => message.content.filter((block) => block.type === "tool_use");

test("a message", async () => {
  const message = await ask({ system: [{ type: "text", text: "Be brief." }], stop_sequences: ["END"] });
  assert.deepEqual(message.content.map((block) => [block.type, block.text]), [["text", TEXT]]);
  assert.deepEqual([message.role, message.model, message.stop_reason], ["assistant", "talker", "end_turn"]);
  assert.ok(message.usage.input_tokens > 0);
  assert.equal(message.usage.output_tokens, 5);
  assert.ok(message._request_id);
});

test("a stream", async () => {
  const texts = [];
  const stream = client.messages.stream(asked()).on("text", (text) => texts.push(text));
  const final = await stream.finalMessage();
  assert.equal(texts.join(""), TEXT);
  assert.ok(texts.length > 1);
  assert.deepEqual([final.stop_reason, final.usage.output_tokens], ["end_turn", 5]);
});

test("every event of a stream, in order", async () => {
  const order = [];
  for await (const event of await ask({ model: "caller", stream: true, tools })) {
    if (order.at(-1) !== event.type) order.push(event.type);
  }
  const block = ["content_block_start", "content_block_delta", "content_block_stop"];
  assert.deepEqual(order, ["message_start", ...block, ...block, ...block, "message_delta", "message_stop"]);
});

test("tools, and their results", async () => {
  const message = await ask({ model: "caller", tools, tool_choice: { type: "any" } });
  assert.equal(message.stop_reason, "tool_use");
  assert.equal(message.content[0].text, "Let me look.");
  assert.deepEqual(uses(message).map((block) => block.input), INPUTS);
  const results = uses(message).map((use) => ({ type: "tool_result", tool_use_id: use.id, content: "sunny" }));
  const turns = [...messages, { role: "assistant", content: message.content }, { role: "user", content: results }];
  assert.equal((await ask({ messages: turns, tools })).stop_reason, "end_turn");
});

test("tools, streamed", async () => {
  const pieces = [];
  const stream = client.messages.stream(asked({ model: "caller", tools }));
  stream.on("inputJson", (piece) => pieces.push(piece));
  const final = await stream.finalMessage();
  assert.ok(pieces.length > 2);
  assert.deepEqual(uses(final).map((block) => block.input), INPUTS);
  assert.equal(final.stop_reason, "tool_use");
});

test("thinking, whole and streamed", async () => {
  const thinking = { type: "enabled", budget_tokens: 1024 };
  const deep = asked({ model: "thinker", max_tokens: 2048, thinking });
  for (const message of [await client.messages.create(deep), await client.messages.stream(deep).finalMessage()]) {
    assert.deepEqual(message.content.map((block) => block.type), ["thinking", "text"]);
    assert.equal(message.content[0].thinking, "They want the weather.");
  }
});

test("structured output", async () => {
  const schema = { type: "object", properties: { name: { type: "string" }, people: { type: "integer" } } };
  const message = await ask({ model: "clerk", output_config: { format: { type: "json_schema", schema } } });
  assert.deepEqual(JSON.parse(message.content[0].text), { name: "東京", people: 14_000_000 });
});

test("counting", async () => {
  assert.ok((await client.messages.countTokens({ model: "talker", messages, tools })).input_tokens > 0);
});

test("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("talker"));
  assert.equal((await client.models.retrieve("talker")).id, "talker");
  await assert.rejects(client.models.retrieve("nothing"), Anthropic.NotFoundError);
});

test("errors have their types", async () => {
  const stranger = new Anthropic({ ...options, apiKey: "sk_wrong" });
  const reader = new Anthropic({ ...options, apiKey: process.env.READER_KEY });
  const refused = [
    [() => stranger.messages.create(asked()), Anthropic.AuthenticationError, "authentication_error"],
    [() => reader.messages.create(asked()), Anthropic.PermissionDeniedError, "permission_error"],
    [() => ask({ model: "nothing" }), Anthropic.NotFoundError, "not_found_error"],
    [() => ask({ max_tokens: 0 }), Anthropic.BadRequestError, "invalid_request_error"],
    [() => ask({ model: "busy" }), Anthropic.RateLimitError, "rate_limit_error"],
    [() => ask({ model: "broken" }), Anthropic.InternalServerError, null],
    [() => client.messages.stream(asked({ model: "broken" })).finalMessage(), Anthropic.InternalServerError, null],
  ];
  for (const [call, type, name] of refused) {
    await assert.rejects(call, (error) => {
      assert.ok(error instanceof type, `${error.constructor.name} in place of ${type.name}`);
      assert.ok(error.requestID);
      assert.equal(error.error.type, "error");
      if (name !== null) assert.equal(error.error.error.type, name);
      return true;
    });
  }
});

test("a stream that breaks is an error", async () => {
  await assert.rejects(client.messages.stream(asked({ model: "breaks-off" })).finalMessage(), Anthropic.APIError);
});
