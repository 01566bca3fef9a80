// The official SDK of OpenAI, unchanged but for its base URL, and what its users do with it.
// test_javascript.py has set up the models: each is a fake node that behaves in one way.
import assert from "node:assert/strict";
import test from "node:test";

import OpenAI, { toFile } from "openai";

const options = { baseURL: `${process.env.GATEWAY_URL}/v1`, apiKey: process.env.GATEWAY_KEY, maxRetries: 0 };
const client = new OpenAI(options);
const TEXT = "fake-0 fake-1 fake-2 fake-3 fake-4 ";
const PLACE = { name: "東京", people: 14_000_000 };
const PNG = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64",
);
const WAV = Buffer.concat([Buffer.from("RIFF\x24\x00\x00\x00WAVEfmt ", "latin1"), Buffer.alloc(200_000)]);
const messages = [{ role: "user", content: "hello" }];
const parameters = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "weather", parameters } }];
const schema = {
  type: "object",
  properties: { name: { type: "string" }, people: { type: "integer" } },
  required: ["name", "people"],
  additionalProperties: false,
};

const chat = (values = {}) => client.chat.completions.create({ model: "talker", messages, ...values });
const recording = () => toFile(WAV, "talk.wav", { type: "audio/wav" });
const picture = () => toFile(PNG, "cat.png", { type: "image/png" });

async function all(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

// --- chat

test("chat", async () => {
  const { data, request_id } = await chat().withResponse();
  assert.equal(data.choices[0].message.content, TEXT);
  assert.equal(data.choices[0].finish_reason, "stop");
  assert.equal(data.usage.completion_tokens, 5);
  assert.ok(request_id);
});

test("chat, streamed", async () => {
  const chunks = await all(await chat({ stream: true, stream_options: { include_usage: true } }));
  assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join(""), TEXT);
  assert.equal(chunks.at(-1).usage.completion_tokens, 5);
});

test("a picture in a conversation", async () => {
  const url = `data:image/png;base64,${PNG.toString("base64")}`;
  const content = [
    { type: "text", text: "What is this?" },
    { type: "image_url", image_url: { url } },
  ];
  const answer = await chat({ model: "gpt-4o", messages: [{ role: "user", content }] });
  assert.equal(answer.choices[0].message.content, TEXT);
});

test("tools, and their results", async () => {
  const answer = await chat({ model: "caller", tools, tool_choice: "auto" });
  const [choice] = answer.choices;
  assert.equal(choice.finish_reason, "tool_calls");
  const calls = choice.message.tool_calls;
  assert.deepEqual(
    calls.map((call) => [call.id, call.function.name, JSON.parse(call.function.arguments)]),
    [
      ["call_1", "weather", { city: "Tokyo" }],
      ["call_2", "weather", { city: "東京" }],
    ],
  );
  const results = calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: "sunny" }));
  const next = await chat({ messages: [...messages, choice.message, ...results], tools });
  assert.equal(next.choices[0].message.content, TEXT);
});

test("tools, streamed", async () => {
  const stream = client.chat.completions.stream({ model: "caller", messages, tools });
  const done = [];
  stream.on("tool_calls.function.arguments.done", (call) => done.push(JSON.parse(call.arguments)));
  const [choice] = (await stream.finalChatCompletion()).choices;
  assert.deepEqual(done, [{ city: "Tokyo" }, { city: "東京" }]);
  assert.equal(choice.message.content, "Let me look.");
  assert.equal(choice.finish_reason, "tool_calls");
});

test("the SDK runs the tools itself", async () => {
  const asked = [];
  const look = ({ city }) => asked.push(city) && "sunny";
  const runner = client.chat.completions.runTools(
    {
      model: "caller",
      messages,
      tools: [{ type: "function", function: { name: "weather", parameters, function: look, parse: JSON.parse } }],
    },
    { maxChatCompletions: 1 },
  );
  await runner.done();
  assert.deepEqual(asked, ["Tokyo", "東京"]);
});

test("structured output", async () => {
  const answer = await client.chat.completions.parse({
    model: "clerk",
    messages,
    response_format: { type: "json_schema", json_schema: { name: "place", schema, strict: true } },
  });
  assert.deepEqual(JSON.parse(answer.choices[0].message.content), PLACE);
});

test("completions", async () => {
  const answer = await client.completions.create({ model: "talker", prompt: "hello" });
  assert.equal(answer.choices[0].text, TEXT);
});

// --- embeddings and models

test("embeddings, which the SDK asks for in base64", async () => {
  const input = ["a", "b"];
  const packed = await client.embeddings.create({ model: "talker", input });
  const plain = await client.embeddings.create({ model: "talker", input, encoding_format: "float" });
  assert.equal(packed.data.length, 2);
  for (const [index, { embedding }] of packed.data.entries()) {
    assert.equal(embedding.length, 8);
    embedding.forEach((value, at) => assert.ok(Math.abs(value - plain.data[index].embedding[at]) < 1e-6));
  }
});

test("models", async () => {
  const names = (await all(client.models.list())).map((model) => model.id);
  assert.ok(names.includes("talker") && names.includes("org/with-a-slash:latest"));
  assert.equal((await client.models.retrieve("org/with-a-slash:latest")).id, "org/with-a-slash:latest");
  await assert.rejects(client.models.retrieve("nothing"), OpenAI.NotFoundError);
});

// --- responses: of a node that serves them, and of one that speaks only chat

for (const model of ["responder", "talker"]) {
  test(`responses of ${model}`, async () => {
    const answer = await client.responses.create({ model, input: "hello", instructions: "Be brief." });
    assert.equal(answer.output_text, TEXT);
    assert.equal(answer.status, "completed");
    assert.equal(answer.usage.output_tokens, 5);
  });

  test(`responses of ${model}, streamed`, async () => {
    const stream = client.responses.stream({ model, input: "hello" });
    const events = await all(stream);
    const deltas = events.filter((event) => event.type === "response.output_text.delta");
    assert.equal(deltas.map((event) => event.delta).join(""), TEXT);
    assert.equal(events[0].type, "response.created");
    assert.equal(events.at(-1).type, "response.completed");
    assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
    assert.equal((await stream.finalResponse()).output_text, TEXT);
  });
}

test("responses that are kept", async () => {
  const first = await client.responses.create({ model: "responder", input: "hello" });
  const second = await client.responses.create({ model: "responder", input: "more", previous_response_id: first.id });
  assert.equal(second.previous_response_id, first.id);
  assert.equal((await client.responses.retrieve(first.id)).output_text, TEXT);
  await client.responses.delete(first.id);
  await assert.rejects(client.responses.retrieve(first.id), OpenAI.NotFoundError);
});

test("responses with tools, whole and streamed", async () => {
  const asked = { model: "caller", input: "?", tools: [{ type: "function", name: "weather", parameters, strict: true }] };
  const whole = await client.responses.create(asked);
  const streamed = await client.responses.stream(asked).finalResponse();
  for (const response of [whole, streamed]) {
    const calls = response.output.filter((item) => item.type === "function_call");
    assert.deepEqual(calls.map((call) => call.call_id), ["call_1", "call_2"]);
    assert.deepEqual(calls.map((call) => JSON.parse(call.arguments).city), ["Tokyo", "東京"]);
  }
});

test("responses with structured output", async () => {
  const format = { type: "json_schema", name: "place", schema, strict: true };
  const answer = await client.responses.parse({ model: "clerk", input: "?", text: { format } });
  assert.deepEqual(JSON.parse(answer.output_text), PLACE);
});

// --- sound

test("speech", async () => {
  const asked = { model: "tts-1", voice: "nova", input: "Good morning." };
  const sound = await client.audio.speech.create({ ...asked, response_format: "wav" });
  assert.equal(sound.headers.get("content-type"), "audio/wav");
  assert.ok(Buffer.from(await sound.arrayBuffer()).toString("latin1").startsWith("fake-0"));
});

test("transcription and translation of an upload", async () => {
  const asked = { model: "whisper-1", file: await recording() };
  assert.equal((await client.audio.transcriptions.create({ ...asked, language: "en" })).text, TEXT);
  assert.equal((await client.audio.translations.create(asked)).text, TEXT);
  const verbose = await client.audio.transcriptions.create({ ...asked, response_format: "verbose_json" });
  assert.equal(verbose.duration, 1.5);
  assert.equal(await client.audio.transcriptions.create({ ...asked, response_format: "text" }), `${TEXT}\n`);
});

test("transcription, streamed", async () => {
  const asked = { model: "whisper-1", file: await recording(), stream: true };
  const events = await all(await client.audio.transcriptions.create(asked));
  const deltas = events.filter((event) => event.type === "transcript.text.delta");
  assert.equal(deltas.map((event) => event.delta).join(""), TEXT);
  assert.equal(events.at(-1).text, TEXT);
});

// --- pictures

test("images made, changed and varied", async () => {
  const made = await client.images.generate({ model: "dall-e-3", prompt: "a cat", n: 2, response_format: "b64_json" });
  assert.deepEqual(made.data.map((image) => Buffer.from(image.b64_json, "base64")), [PNG, PNG]);
  const image = [await picture(), await picture()];
  const changed = await client.images.edit({ model: "dall-e-3", image, prompt: "with a hat", n: 3 });
  assert.equal(changed.data.length, 3);
  const varied = await client.images.createVariation({ model: "dall-e-3", image: await picture() });
  assert.equal(varied.data.length, 1);
});

test("an image as it becomes clear", async () => {
  const asked = { model: "dall-e-3", prompt: "a cat", stream: true, partial_images: 2 };
  const events = await all(await client.images.generate(asked));
  assert.equal(events[0].type, "image_generation.partial_image");
  assert.equal(events.at(-1).type, "image_generation.completed");
});

// --- errors

test("errors have their types", async () => {
  const stranger = new OpenAI({ ...options, apiKey: "sk_wrong" });
  const reader = new OpenAI({ ...options, apiKey: process.env.READER_KEY });
  const asked = { model: "talker", messages };
  const refused = [
    [() => stranger.chat.completions.create(asked), OpenAI.AuthenticationError, { status: 401, code: "invalid_api_key" }],
    [() => reader.chat.completions.create(asked), OpenAI.PermissionDeniedError, { status: 403 }],
    [() => chat({ model: "nothing" }), OpenAI.NotFoundError, { status: 404, code: "model_not_found", param: "model" }],
    [() => chat({ temperature: 5 }), OpenAI.BadRequestError, { status: 400, param: "temperature" }],
    [() => chat({ model: "whisper-1" }), OpenAI.BadRequestError, { code: "model_capability_mismatch" }],
    [() => chat({ model: "busy" }), OpenAI.RateLimitError, { status: 429 }],
    [() => chat({ model: "broken" }), OpenAI.InternalServerError, {}],
    [() => chat({ model: "broken", stream: true }), OpenAI.InternalServerError, {}],
  ];
  for (const [call, type, fields] of refused) {
    await assert.rejects(call, (error) => {
      assert.ok(error instanceof type, `${error.constructor.name} in place of ${type.name}`);
      assert.ok(error.requestID);
      for (const [name, value] of Object.entries(fields)) assert.equal(error[name], value);
      return true;
    });
  }
});

test("a stream that breaks is an error", async () => {
  const stream = await chat({ model: "breaks-off", stream: true });
  await assert.rejects(all(stream), OpenAI.APIError);
});
