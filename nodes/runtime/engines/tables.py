"""Which architectures the engines run, each table with its source, in the families of files/architectures.py.

A family stands for all of its members: an engine that runs `qwen2` and not the newest Qwen still lists it, and says
why when it fails to load it (serving/engines.py takes such a model out of the list).
"""

from __future__ import annotations

from typing import Final

from nodes.runtime.files.architectures import families


def _table(text: str) -> frozenset[str]:
    return frozenset(families(text.split()))


# `general.architecture` of GGUF files: LLM_ARCH_NAMES in src/llama-arch.cpp of github.com/ggml-org/llama.cpp, read at
# 00395eb2. Left out: clip, mmproj and decoders of sound alone, draft models (eagle3, dflash), which answer nobody.
LLAMA_CPP: Final = _table("""
    llama llama4 deci falcon grok gpt2 gptj gptneox mpt baichuan starcoder refact bert modern-bert nomic-bert
    nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert bloom stablelm qwen qwen2 qwen2moe qwen2vl qwen3 qwen3moe
    qwen3next qwen3vl qwen3vlmoe qwen35 qwen35moe phi2 phi3 phimoe plamo plamo2 plamo3 codeshell orion internlm2 minicpm
    minicpm3 gemma gemma2 gemma3 gemma3n gemma4 gemma-embedding starcoder2 mamba mamba2 jamba falcon-h1 xverse command-r
    cohere2 cohere2moe dbrx olmo olmo2 olmoe openelm arctic deepseek deepseek2 deepseek2-ocr deepseek32 deepseek4
    chatglm glm4 glm4moe glm-dsa bitnet t5 t5encoder jais jais2 nemotron nemotron_h nemotron_h_moe exaone exaone4
    exaone-moe rwkv6 rwkv6qwen2 rwkv7 arwkv7 granite granitemoe granitehybrid chameleon plm bailingmoe bailingmoe2 dots1
    arcee afmoe laguna ernie4_5 ernie4_5-moe hunyuan-moe hunyuan-dense hunyuan_vl hy_v3 smollm3 gpt-oss lfm2 lfm2moe
    dream smallthinker llada llada-moe seed_oss grovemoe apertus minimax-m2 cogvlm rnd1 pangu-embedded mistral3 mistral4
    paddleocr mimo2 step35 llama-embed maincoder kimi-linear talkie mellum
""")

# Classes of `architectures` in config.json: _TEXT_GENERATION_MODELS, _EMBEDDING_MODELS, _CROSS_ENCODER_MODELS,
# _MULTIMODAL_MODELS and _TRANSFORMERS_SUPPORTED_MODELS in vllm/model_executor/models/registry.py of
# github.com/vllm-project/vllm, read at 0002bff0.
VLLM: Final = _table("""
    AfmoeForCausalLM ApertusForCausalLM AquilaModel AquilaForCausalLM ArceeForCausalLM ArcticForCausalLM
    BaiChuanForCausalLM BailingMoeForCausalLM BailingMoeV2ForCausalLM BambaForCausalLM BloomForCausalLM ChatGLMModel
    CohereForCausalLM Cohere2ForCausalLM CwmForCausalLM DbrxForCausalLM DeciLMForCausalLM DeepseekV3ForCausalLM
    Dots1ForCausalLM Ernie4_5ForCausalLM Ernie4_5_MoeForCausalLM ExaoneForCausalLM Exaone4ForCausalLM FalconForCausalLM
    FalconMambaForCausalLM FalconH1ForCausalLM FlexOlmoForCausalLM GemmaForCausalLM Qwen3ForCausalLM GlmForCausalLM
    GptOssForCausalLM GPT2LMHeadModel GPTBigCodeForCausalLM GPTJForCausalLM GPTNeoXForCausalLM GraniteForCausalLM GritLM
    Grok1ModelForCausalLM HunYuanMoEV1ForCausalLM HunYuanDenseV1ForCausalLM HCXVisionForCausalLM InternLMForCausalLM
    InternLM2ForCausalLM InternLM2VEForCausalLM InternLM3ForCausalLM JAISLMHeadModel Jais2ForCausalLM JambaForCausalLM
    KimiLinearForCausalLM Lfm2ForCausalLM Lfm2MoeForCausalLM LlamaForCausalLM LongcatFlashForCausalLM MambaForCausalLM
    Mamba2ForCausalLM MiniCPMForCausalLM MiniCPM3ForCausalLM MiniMaxForCausalLM MiniMaxText01ForCausalLM
    MiniMaxM1ForCausalLM MiniMaxM2ForCausalLM MistralForCausalLM MixtralForCausalLM MptForCausalLM MiMoForCausalLM
    MiMoV2FlashForCausalLM NemotronForCausalLM OlmoForCausalLM Olmo2ForCausalLM Olmo3ForCausalLM OlmoeForCausalLM
    OPTForCausalLM OrionForCausalLM OuroForCausalLM PanguEmbeddedForCausalLM PersimmonForCausalLM PhiForCausalLM
    Plamo2ForCausalLM Plamo3ForCausalLM SeedOssForCausalLM Step3TextForCausalLM StableLmForCausalLM
    StableLMEpochForCausalLM Starcoder2ForCausalLM SolarForCausalLM TeleChat2ForCausalLM TeleFLMForCausalLM
    XverseForCausalLM Zamba2ForCausalLM SmolLM3ForCausalLM BertModel GteModel GteNewModel ModernBertModel NomicBertModel
    RobertaForMaskedLM RobertaModel XLMRobertaModel CLIPModel SiglipModel BertForSequenceClassification
    GteNewForSequenceClassification JambaForSequenceClassification GPT2ForSequenceClassification JinaVLForRanking
    ModernBertForSequenceClassification RobertaForSequenceClassification XLMRobertaForSequenceClassification
    AriaForConditionalGeneration AyaVisionForConditionalGeneration ChameleonForConditionalGeneration
    Cohere2VisionForConditionalGeneration DotsOCRForCausalLM FuyuForCausalLM InternVLChatModel
    InternVLForConditionalGeneration InternS1ForConditionalGeneration Idefics3ForConditionalGeneration
    SmolVLMForConditionalGeneration KeyeForConditionalGeneration LightOnOCRForConditionalGeneration
    LlavaForConditionalGeneration LlavaNextForConditionalGeneration LlavaOnevisionForConditionalGeneration MiniCPMO
    MiniCPMV MolmoForCausalLM Ovis Ovis2_5 PaddleOCRVLForConditionalGeneration PaliGemmaForConditionalGeneration
    PixtralForConditionalGeneration SkyworkR1VChatModel Step3VLForConditionalGeneration UltravoxModel
    VoxtralForConditionalGeneration
""")

# The modules of mlx_lm/models/ of github.com/ml-explore/mlx-lm (read at ba46244b), by the class that config.json names.
MLX: Final = _table("""
    AfmoeForCausalLM ApertusForCausalLM BaichuanM1ForCausalLM BailingMoeForCausalLM BitNetForCausalLM CohereForCausalLM
    Cohere2ForCausalLM DbrxForCausalLM DeepseekV3ForCausalLM Dots1ForCausalLM Ernie4_5ForCausalLM
    Ernie4_5_MoeForCausalLM ExaoneForCausalLM Exaone4ForCausalLM FalconH1ForCausalLM GemmaForCausalLM GlmForCausalLM
    GPT2LMHeadModel GPTBigCodeForCausalLM GPTNeoXForCausalLM GptOssForCausalLM GraniteForCausalLM HeliumForCausalLM
    HunYuanMoEV1ForCausalLM HunYuanDenseV1ForCausalLM InternLM2ForCausalLM InternLM3ForCausalLM KimiLinearForCausalLM
    Lfm2ForCausalLM Lfm2MoeForCausalLM LlamaForCausalLM MambaForCausalLM Mamba2ForCausalLM MiMoForCausalLM
    MiniCPMForCausalLM MiniCPM3ForCausalLM MistralForCausalLM MixtralForCausalLM NemotronForCausalLM OlmoForCausalLM
    Olmo2ForCausalLM Olmo3ForCausalLM OlmoeForCausalLM OpenELMForCausalLM PhiForCausalLM Plamo2ForCausalLM
    Qwen3ForCausalLM SeedOssForCausalLM SmolLM3ForCausalLM StableLmForCausalLM Starcoder2ForCausalLM
""")

# Encoders whose ONNX export gives one vector a token, as sentence-transformers and optimum export them.
ONNX_ENCODERS: Final = _table("""
    BertModel RobertaModel XLMRobertaModel DistilBertModel MPNetModel NomicBertModel ModernBertModel GteModel NewModel
    MiniLM SnowflakeArctic mxbai CamembertModel DebertaV2Model ElectraModel AlbertModel
""")

# What a folder in diffusers' layout may be for stable-diffusion.cpp: `is_directory` in src/model.cpp of
# github.com/leejet/stable-diffusion.cpp; and `general.architecture` of image models in GGUF files.
SD_CPP: Final = _table("""
    StableDiffusionPipeline StableDiffusionXLPipeline StableDiffusionInpaintPipeline StableDiffusionXLInpaintPipeline
    sd1 sd2 sdxl sd3 flux
""")
