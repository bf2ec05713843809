// Judge one image file: send it as it is, print the verdict that the server gives.
//
//     dotnet run -- http://line1:8001 screw part.png
//
// The server decodes the file (the category's encoded form), so nothing here knows
// about pixels. README.md beside this file says how to build it.

using System.Buffers.Binary;
using System.Text;
using Google.Protobuf;
using Grpc.Core;
using Grpc.Net.Client;
using Inference;

if (args.Length != 3)
{
    Console.Error.WriteLine("usage: inspect http://HOST:PORT CATEGORY FILE");
    return 2;
}

using var channel = GrpcChannel.ForAddress(args[0], new GrpcChannelOptions { MaxReceiveMessageSize = null });
var client = new GRPCInferenceService.GRPCInferenceServiceClient(channel);

var input = new ModelInferRequest.Types.InferInputTensor { Name = "IMAGE_BYTES", Datatype = "BYTES" };
input.Shape.Add(new long[] { 1, 1 });
var request = new ModelInferRequest { ModelName = args[1] + "__encoded" };
request.Inputs.Add(input);
request.RawInputContents.Add(Packed(await File.ReadAllBytesAsync(args[2])));
foreach (var name in new[] { "SCORE", "VERDICT", "THRESHOLDS", "RELEASE" })
{
    request.Outputs.Add(new ModelInferRequest.Types.InferRequestedOutputTensor { Name = name });
}

try
{
    var answer = await AskAsync(request, DateTime.UtcNow.AddSeconds(10));
    var limits = Output(answer, "THRESHOLDS");
    Console.WriteLine(
        $"{Text(Output(answer, "VERDICT"))} {Number(Output(answer, "SCORE"), 0):F4} " +
        $"(accept {Number(limits, 0)}, reject {Number(limits, 1)}, " +
        $"release {Text(Output(answer, "RELEASE"))[..12]})");
    return 0;
}
catch (RpcException error)
{
    Console.Error.WriteLine(error.Status.Detail);
    return 1;
}

// Ask until the deadline: an inspection changes nothing, so asking again is safe.
async Task<ModelInferResponse> AskAsync(ModelInferRequest asked, DateTime deadline)
{
    for (var longest = 100; ; longest = Math.Min(2 * longest, 2000))
    {
        try
        {
            return await client.ModelInferAsync(asked, deadline: deadline);
        }
        catch (RpcException error) when (error.StatusCode == StatusCode.Unavailable)
        {
            var pause = TimeSpan.FromMilliseconds(Random.Shared.Next(longest));
            if (DateTime.UtcNow + pause >= deadline)
            {
                throw;
            }
            await Task.Delay(pause);
        }
    }
}

// A BYTES tensor holds the length of each element, 4 bytes little-endian, before it.
static ByteString Packed(byte[] element)
{
    var packed = new byte[4 + element.Length];
    BinaryPrimitives.WriteUInt32LittleEndian(packed, (uint)element.Length);
    element.CopyTo(packed, 4);
    return ByteString.CopyFrom(packed);
}

static byte[] Output(ModelInferResponse answer, string name)
{
    for (var i = 0; i < answer.Outputs.Count; i++)
    {
        if (answer.Outputs[i].Name == name)
        {
            return answer.RawOutputContents[i].ToByteArray();
        }
    }
    throw new InvalidOperationException($"the server sent no {name}; is its release of contract 2?");
}

static string Text(byte[] tensor) => Encoding.UTF8.GetString(tensor, 4, tensor.Length - 4);

static float Number(byte[] tensor, int index) => BinaryPrimitives.ReadSingleLittleEndian(tensor.AsSpan(4 * index));
