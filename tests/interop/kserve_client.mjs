// A KServe v2 client in which nothing is ours: gRPC for Node, and Triton's published service.
//
//   node kserve_client.mjs DESCRIPTORS HOST:PORT MODEL IMAGE
//
// DESCRIPTORS is a FileDescriptorSet of grpc_service.proto. Prints one JSON object: the score and
// the map's shape and highest value, or the error's gRPC code and text.

import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const [descriptors, address, model, image] = process.argv.slice(2);

const definition = protoLoader.loadFileDescriptorSetFromBuffer(readFileSync(descriptors), {
  keepCase: true,
  longs: Number,
});
const { GRPCInferenceService } = grpc.loadPackageDefinition(definition).inference;
const client = new GRPCInferenceService(address, grpc.credentials.createInsecure());

const request = {
  model_name: model,
  inputs: [
    {
      name: "IMAGE_BYTES",
      datatype: "BYTES",
      shape: [1, 1], // one request, one image
      contents: { bytes_contents: [readFileSync(image)] }, // the file as it is
    },
  ],
  outputs: [{ name: "SCORE" }, { name: "ANOMALY_MAP" }],
};

client.ModelInfer(request, { deadline: Date.now() + 60_000 }, (error, answer) => {
  if (error) {
    console.log(JSON.stringify({ code: error.code, details: error.details }));
  } else {
    const [score, map] = request.outputs.map(({ name }) => floats(answer, name));
    const highest = map.values.reduce((a, b) => Math.max(a, b));
    console.log(JSON.stringify({ score: score.values[0], map: map.shape, highest }));
  }
  client.close();
});

function floats(answer, name) {
  const index = answer.outputs.findIndex((output) => output.name === name);
  const raw = answer.raw_output_contents[index]; // FP32, little-endian
  const values = Array.from({ length: raw.length / 4 }, (_, i) => raw.readFloatLE(4 * i));
  return { shape: answer.outputs[index].shape, values };
}
